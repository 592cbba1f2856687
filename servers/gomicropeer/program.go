package gomicropeer

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Stream is go-micro's stream at a client.
type Stream interface {
	Send(any) error
	Recv(any) error
	Close() error
}

// Client is what a version's client, broker and registry do.
type Client interface {
	Call(service, endpoint string, req, rsp any) error
	Stream(service, endpoint string, open any) (Stream, error)
	Publish(topic string, message any) error
	Raw(topic string, header map[string]string, body []byte) error // by the broker alone
	Subscribe(topic, queue string, heard func(topic string, header map[string]string, body []byte)) error
	List() (any, error)
	Get(name string) (any, error)
	Watch(name string, seen func(any)) error
}

// Version is one of go-micro's.
type Version struct {
	// Client gives a client.
	Client func(*Options) (Client, error)
	// Serve runs a service of the name until stop is closed. It calls up with its address when it is registered.
	Serve func(o *Options, name string, up func(address string), stop <-chan struct{}) error
	// Request and Response give protobuf messages with the fields of PlainRequest and PlainResponse.
	Request, Response func() any
}

// PlainRequest is what each endpoint takes.
type PlainRequest struct {
	Name  string `json:"name"`
	Count int64  `json:"count"`
}

// PlainResponse is what each endpoint gives.
type PlainResponse struct {
	Msg    string            `json:"msg"`
	Seq    int64             `json:"seq"`
	Header map[string]string `json:"header,omitempty"`
}

var out sync.Mutex

// Say writes a line: a prefix, and a value as JSON.
func Say(prefix string, value any) {
	out.Lock()
	defer out.Unlock()
	data, err := json.Marshal(value)
	if err != nil {
		data, _ = json.Marshal(err.Error())
	}
	fmt.Println(prefix + string(data))
}

// answer is what an order or a program says.
type answer struct {
	Reply    any               `json:"reply,omitempty"`
	Messages []json.RawMessage `json:"messages,omitempty"`
	End      string            `json:"end,omitempty"`   // how a stream ended: "EOF"
	Error    any               `json:"error,omitempty"` // go-micro's, or a text
}

// failed is the answer that tells of an error: as JSON where the error is one of go-micro's, whose text is JSON.
func failed(err error) answer {
	var fields map[string]any
	if json.Unmarshal([]byte(err.Error()), &fields) == nil {
		return answer{Error: fields}
	}
	return answer{Error: err.Error()}
}

// modes are the orders by their number of arguments. Each is a mode of the program, too.
var modes = map[string]int{"call": 3, "stream": 3, "count": 3, "publish": 2, "raw": 2, "subscribe": 1, "list": 0, "get": 1, "watch": 1, "type": 1}

// Main runs the program by its arguments:
//
//	serve [FLAGS] NAME                         a service
//	call [FLAGS] SERVICE ENDPOINT JSON         a call
//	stream [FLAGS] SERVICE ENDPOINT [JSON,...] a stream with an answer for each message, which the client ends
//	count [FLAGS] SERVICE ENDPOINT JSON        a stream of one message, which the service ends
//	publish [FLAGS] TOPIC JSON                 by the client
//	raw [FLAGS] TOPIC TEXT                     by the broker
//	subscribe [FLAGS] TOPIC                    by the broker: "event {...}" for each message
//	list, get NAME, watch NAME                 the registry
//	client [FLAGS]                             all of these as orders by standard input, a line each, and "type TYPE", for those after it
//
// An order's answer is a line of JSON: {"reply":...}, {"messages":[...],"end":"EOF"} or {"error":...}.
func Main(v Version) {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: serve|client|call|stream|count|publish|raw|subscribe|list|get|watch [FLAGS] ARGUMENTS")
		os.Exit(2)
	}
	mode, o := os.Args[1], new(Options)
	f := o.flags(mode)
	_ = f.Parse(os.Args[2:])
	if err := run(v, o, mode, f.Args()); err != nil {
		Say("", failed(err))
		os.Exit(1)
	}
}

func run(v Version, o *Options, mode string, args []string) error {
	if mode == "serve" {
		if len(args) != 1 {
			return errors.New("usage: serve [FLAGS] NAME")
		}
		stop := make(chan struct{})
		up := func(address string) {
			Say("address ", address)
			Say("", "ready")
			go func() { o.wait(); close(stop) }()
		}
		return v.Serve(o, args[0], up, stop)
	}
	c, err := v.Client(o)
	if err != nil {
		return err
	}
	p := program{v, o, c}
	if mode == "client" {
		p.orders()
		return nil
	}
	n, ok := modes[mode]
	if !ok || len(args) != n {
		return fmt.Errorf("%s takes %d arguments", mode, n)
	}
	a := p.within(patience, mode, args)
	Say("", a)
	switch mode {
	case "publish", "raw":
		time.Sleep(o.Linger)
	case "subscribe", "watch":
		o.wait()
	}
	if a.Error != nil {
		os.Exit(1)
	}
	return nil
}

// wait returns at a signal, or at the end of standard input.
func (o *Options) wait() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	ended := make(chan struct{})
	if !o.Stay {
		go func() { _, _ = io.Copy(io.Discard, os.Stdin); close(ended) }()
	}
	select {
	case <-signals:
	case <-ended:
	}
}

type program struct {
	v Version
	o *Options
	c Client
}

// orders runs orders until there are no more.
func (p program) orders() {
	Say("", "ready")
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		verb, rest, _ := strings.Cut(in.Text(), " ")
		n, ok := modes[verb]
		args := strings.SplitN(rest, " ", n)
		if rest == "" {
			args = nil
		}
		if !ok || len(args) != n {
			Say("", answer{Error: fmt.Sprintf("%s: no such order, or not with %d arguments", verb, len(args))})
			continue
		}
		Say("", p.within(patience, verb, args))
	}
}

// patience is how long an order may take: some of go-micro's streams wait for ever.
const patience = 8 * time.Second

// within runs an order, which is left to itself where it takes longer.
func (p program) within(limit time.Duration, verb string, args []string) answer {
	done := make(chan answer, 1)
	go func() { done <- p.do(verb, args) }()
	select {
	case a := <-done:
		return a
	case <-time.After(limit):
		return answer{Error: fmt.Sprintf("%s has not ended within %v", verb, limit)}
	}
}

func (p program) do(verb string, args []string) answer {
	var reply any = "done"
	var err error
	switch verb {
	case "type":
		p.o.ContentType = args[0]
	case "call":
		return p.call(args[0], args[1], args[2])
	case "stream", "count":
		return p.stream(verb, args[0], args[1], args[2])
	case "publish":
		var m any
		if m, err = p.request(args[1]); err == nil {
			err = p.c.Publish(args[0], m)
		}
	case "raw":
		header := map[string]string{"Content-Type": p.o.ContentType}
		for key, value := range p.o.Metadata {
			header[key] = value
		}
		err = p.c.Raw(args[0], header, []byte(args[1]))
	case "subscribe":
		err = p.c.Subscribe(args[0], p.o.Queue, func(topic string, header map[string]string, body []byte) {
			Say("event ", map[string]any{"topic": topic, "header": header, "body": string(body)})
		})
	case "list":
		reply, err = p.c.List()
	case "get":
		reply, err = p.c.Get(args[0])
	case "watch":
		err = p.c.Watch(args[0], func(e any) { Say("event ", e) })
	}
	if err != nil {
		return failed(err)
	}
	return answer{Reply: reply}
}

// request gives the Go value of a request in JSON.
func (p program) request(text string) (any, error) {
	var req any
	switch p.o.Message {
	case "protobuf":
		req = p.v.Request()
	case "plain":
		req = new(PlainRequest)
	case "raw":
		return json.RawMessage(text), nil
	default:
		return nil, fmt.Errorf("no such message: %q", p.o.Message)
	}
	return req, json.Unmarshal([]byte(text), req)
}

// response gives a value to decode a response to.
func (p program) response() any {
	switch p.o.Message {
	case "protobuf":
		return p.v.Response()
	case "plain":
		return new(PlainResponse)
	}
	return new(json.RawMessage)
}

func (p program) call(service, endpoint, text string) answer {
	req, err := p.request(text)
	if err != nil {
		return failed(err)
	}
	rsp := p.response()
	if err := p.c.Call(service, endpoint, req, rsp); err != nil {
		return failed(err)
	}
	return answer{Reply: rsp}
}

// stream opens a stream as generated clients do: with an empty message, or the request of a stream that the service alone sends in,
// which goes as a second message. Then it sends each message, and reads an answer each, or all there are.
func (p program) stream(verb, service, endpoint, text string) answer {
	texts := []json.RawMessage{json.RawMessage(text)}
	if verb == "stream" {
		if err := json.Unmarshal([]byte(text), &texts); err != nil {
			return failed(err)
		}
	}
	open, err := p.request("{}")
	if err != nil {
		return failed(err)
	}
	s, err := p.c.Stream(service, endpoint, open)
	if err != nil {
		return failed(err)
	}
	defer s.Close()
	var a answer
	for _, text := range texts {
		req, err := p.request(string(text))
		if err == nil {
			err = s.Send(req)
		}
		if err != nil {
			return a.ended(err)
		}
		for {
			rsp := p.response()
			if err := s.Recv(rsp); err != nil {
				return a.ended(err)
			}
			data, _ := json.Marshal(rsp)
			a.Messages = append(a.Messages, data)
			if verb == "stream" {
				break
			}
		}
	}
	return a
}

func (a answer) ended(err error) answer {
	if errors.Is(err, io.EOF) || err.Error() == "EOS" {
		a.End = "EOF"
		return a
	}
	a.Error = failed(err).Error
	return a
}
