package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"time"

	"go-micro.dev/v5"
	"go-micro.dev/v5/client"
	microerrors "go-micro.dev/v5/errors"
	"go-micro.dev/v5/metadata"
	"go-micro.dev/v5/server"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
)

// HelloRequest is what Say.Hello takes.
type HelloRequest struct {
	Name string `json:"name"`
}

// HelloResponse is what Say.Hello gives.
type HelloResponse struct {
	Message string `json:"message"`
}

// CountRequest is what Say.Count takes. Pause is in milliseconds, before each message: go-micro's own defect has messages that are
// sent at once come as copies of the last.
type CountRequest struct {
	To    int `json:"to"`
	Pause int `json:"pause"`
}

// CountResponse is a message of Say.Count.
type CountResponse struct {
	N int `json:"n"`
}

// Say is a service as its users write them.
type Say struct{}

// Hello greets, in the language of the metadata.
func (*Say) Hello(ctx context.Context, req *HelloRequest, rsp *HelloResponse) error {
	greeting, ok := metadata.Get(ctx, "Greeting")
	if !ok {
		greeting = "Hello"
	}
	switch req.Name {
	case "":
		return microerrors.BadRequest("says.hello", "no name")
	case "plain":
		return errors.New("a plain error")
	}
	rsp.Message = greeting + " " + req.Name
	return nil
}

// Count is a stream of numbers.
func (*Say) Count(_ context.Context, stream server.Stream) error {
	var req CountRequest
	if err := stream.Recv(&req); err != nil {
		return err
	}
	for n := range req.To {
		time.Sleep(time.Duration(req.Pause) * time.Millisecond)
		if err := stream.Send(&CountResponse{N: n + 1}); err != nil {
			return err
		}
	}
	return nil
}

// Chat answers each message of a stream, until its caller ends it: "finish" ends it from this side, and "fail" with an error. How the
// caller has ended it is an event.
func (*Say) Chat(ctx context.Context, stream server.Stream) error {
	for {
		var req HelloRequest
		if err := stream.Recv(&req); err != nil {
			say("left ", err.Error(), nil)
			return nil
		}
		switch req.Name {
		case "finish":
			return nil
		case "fail":
			return microerrors.Forbidden("says.chat", "the stream is refused")
		}
		var rsp HelloResponse
		if err := new(Say).Hello(ctx, &req, &rsp); err != nil {
			return err
		}
		if err := stream.Send(&rsp); err != nil {
			return err
		}
	}
}

// Wait answers after as many milliseconds as it is told, or panics if those are below zero.
func (*Say) Wait(_ context.Context, req *CountRequest, rsp *CountResponse) error {
	if req.Pause < 0 {
		panic("a pause below zero")
	}
	time.Sleep(time.Duration(req.Pause) * time.Millisecond)
	rsp.N = req.To
	return nil
}

// Echo answers with a message of any fields, in JSON or protobuf.
func (*Say) Echo(_ context.Context, req, rsp *structpb.Struct) error {
	rsp.Fields = req.GetFields()
	return nil
}

// runService is a service with the HTTP transport and broker, as go-micro's defaults are, with its subscriber to a topic, whose messages are
// events. It tells its address after the word "at", and leaves when its input ends.
//
// usage: gomicro service URL NAME TOPIC [BROKER]
func runService(args []string) error {
	r, err := open(args[0])
	if err != nil {
		return err
	}
	b, err := openBroker(args[3:], r)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	up := make(chan struct{})
	s := micro.NewService(micro.Name(args[1]), micro.Registry(r), micro.Broker(b), micro.Address("127.0.0.1:0"), micro.Context(ctx), micro.HandleSignal(false),
		micro.RegisterTTL(5*time.Second), micro.RegisterInterval(2*time.Second),
		micro.AfterStart(func() error { close(up); return nil }))
	if err := micro.RegisterHandler(s.Server(), new(Say)); err != nil {
		return err
	}
	heard := func(ctx context.Context, req *HelloRequest) error {
		header, _ := metadata.FromContext(ctx)
		say("event ", map[string]any{"name": req.Name, "header": header}, nil)
		return nil
	}
	if err := micro.RegisterSubscriber(args[2], s.Server(), heard); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Run() }()
	select {
	case <-up:
	case err := <-ended:
		return err
	}
	say("at ", s.Server().Options().Address, nil)
	orders(func(string, string) {})
	stop()
	return <-ended
}

// runClient calls services, by the orders "call SERVICE ENDPOINT JSON", "count SERVICE ENDPOINT JSON", which gives all messages of a
// stream, and "publish TOPIC JSON".
//
// usage: gomicro client URL CONTENT-TYPE [BROKER]
func runClient(args []string) error {
	r, err := open(args[0])
	if err != nil {
		return err
	}
	b, err := openBroker(args[2:], r)
	if err != nil {
		return err
	}
	c := client.NewClient(client.Registry(r), client.Broker(b), client.ContentType(args[1]), client.RequestTimeout(10*time.Second))
	ctx := metadata.NewContext(context.Background(), metadata.Metadata{"Greeting": "Hi"})
	orders(func(verb, rest string) {
		words := strings.SplitN(rest, " ", 3)
		body := json.RawMessage(words[len(words)-1])
		switch verb {
		case "call":
			rsp, err := call(ctx, c, words[0], words[1], body)
			say("", rsp, err)
		case "count":
			all, err := count(ctx, c, c.NewRequest(words[0], words[1], body, client.StreamingRequest()))
			say("", all, err)
		case "publish":
			say("", "published", c.Publish(ctx, c.NewMessage(words[0], body)))
		}
	})
	return nil
}

// call calls with JSON, or with a protobuf message that has the same fields.
func call(ctx context.Context, c client.Client, service, endpoint string, body json.RawMessage) (rsp json.RawMessage, err error) {
	if !strings.Contains(c.Options().ContentType, "proto") {
		err = c.Call(ctx, c.NewRequest(service, endpoint, body), &rsp)
		return rsp, err
	}
	in, out := new(structpb.Struct), new(structpb.Struct)
	if err := protojson.Unmarshal(body, in); err != nil {
		return nil, err
	}
	if err := c.Call(ctx, c.NewRequest(service, endpoint, in), out); err != nil {
		return nil, err
	}
	return protojson.Marshal(out)
}

// count gives all messages of a stream.
func count(ctx context.Context, c client.Client, req client.Request) ([]json.RawMessage, error) {
	s, err := c.Stream(ctx, req)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if err := s.Send(req.Body()); err != nil {
		return nil, err
	}
	all := []json.RawMessage{}
	for {
		var m json.RawMessage
		switch err := s.Recv(&m); {
		case errors.Is(err, io.EOF) || err != nil && err.Error() == "EOS":
			return all, nil
		case err != nil:
			return all, err
		}
		all = append(all, m)
	}
}
