package http_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	nethttp "net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/http"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/memory"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// calls is a CallMux without a network: a test makes the calls.
type calls struct{ route transport.Router }

func (c *calls) HandleHTTP(func(*nethttp.Request) bool, nethttp.Handler) {}
func (c *calls) Addr() string                                            { return "127.0.0.1:1" }
func (c *calls) HandleCalls(route transport.Router)                      { c.route = route }

func (c *calls) call(ctx context.Context, header metadata.MD, body []byte) *transport.Message {
	rsp := new(transport.Message)
	c.route(header).Serve(ctx, &transport.Message{Kind: transport.Call, Header: header, Body: body}, rsp)
	return rsp
}

func batchHeader(id string) metadata.MD {
	return metadata.Of("micro-subscription", id, "content-type", "application/vnd.micro.batch")
}

// documented is the batch of docs/protocol.md.
var documented = []byte("\x03\x02k-\x1f" +
	"\x01\x1f\x0ccontent-type\x00\x10application/json\x02{}" +
	"\x00\x04null" +
	"\x03\x00\x05other\x00")

func TestBatchAsDocumented(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	b, c := newBroker(t, reg, http.Options{}), &calls{}
	if err := b.Attach(c); err != nil {
		t.Fatal(err)
	}
	var got []broker.Message
	subscribe(t, b, "topic", func(_ context.Context, m *broker.Message) error {
		if got = append(got, *m); len(got) == 2 || len(got) == 3 {
			return &status.Error{ID: "x", Code: 409, Detail: "no"}
		}
		return nil
	}, broker.Concurrency(1))
	id := onlyNode(t, reg).ID
	rsp := c.call(t.Context(), batchHeader(id), documented)
	if len(got) != 3 {
		t.Fatalf("%d messages came, want 3: %+v", len(got), rsp)
	}
	for i, want := range []struct{ id, contentType, body string }{{"k-v", "application/json", "{}"}, {"k-10", "application/json", "null"}, {"other", "", ""}} {
		if m := got[i]; m.Topic != "topic" || m.ID != want.id || m.Header.Get("content-type") != want.contentType || string(m.Body) != want.body {
			t.Errorf("message %d: %+v, want %v", i, m, want)
		}
	}
	if rsp.Header.Get("micro-ack") != id || rsp.Header.Get("micro-error") != "" {
		t.Errorf("header %q", rsp.Header)
	}
	failure := `{"id":"x","code":409,"detail":"no","status":"Conflict"}`
	want := "\x01\x01" + string(rune(len(failure))) + failure + "\x00\x01" + string(rune(len(failure))) + failure
	if string(rsp.Body) != want {
		t.Errorf("body %q, want %q", rsp.Body, want)
	}
	got = nil
	if rsp := c.call(t.Context(), batchHeader(id), []byte("\x01\x00\x01\x00\x00")); len(rsp.Body) != 0 || len(got) != 1 || rsp.Header.Get("micro-ack") != id {
		t.Errorf("all acknowledged: %+v", rsp)
	}
}

func TestBatchAnswers(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	b, c := newBroker(t, reg, http.Options{MaxMessage: 100}), &calls{}
	if err := b.Attach(c); err != nil {
		t.Fatal(err)
	}
	var runs atomic.Int32
	subscribe(t, b, "topic", func(context.Context, *broker.Message) error { runs.Add(1); return nil })
	id := onlyNode(t, reg).ID
	const one = "\x01\x00\x01\x00\x02{}"
	for name, test := range map[string]struct {
		header metadata.MD
		body   string
		code   status.Code
	}{
		"another subscription": {batchHeader("unknown"), one, 404},
		"content type":         {metadata.Of("micro-subscription", id, "content-type", "application/json"), one, 415},
		"empty":                {batchHeader(id), "", 400},
		"cut off":              {batchHeader(id), one[:len(one)-1], 400},
		"more than there are":  {batchHeader(id), "\x02" + one[1:], 400},
		"a huge count":         {batchHeader(id), "\xff\xff\xff\xff\xff\xff\xff\x7f" + one[1:], 400},
		"long body":            {batchHeader(id), "\x01\x00\x01\x00\x65" + strings.Repeat("x", 101), 400},
		"bad header":           {batchHeader(id), "\x01\x00\x01\x01\x02\xff\xff\x00", 400},
		"unknown flags":        {batchHeader(id), "\x01\x00\x01\x04\x02{}", 400},
		"something follows":    {batchHeader(id), one + "\x09", 400},
	} {
		rsp := c.call(t.Context(), test.header, []byte(test.body))
		e := status.Parse(rsp.Header.Get("micro-error"))
		if e == nil || e.Code != test.code || !e.Refused || e.ID != "micro.broker" || rsp.Header.Get("micro-ack") != "" {
			t.Errorf("%s: %v, want a refusal with code %d", name, e, test.code)
		}
	}
	if runs.Load() != 0 {
		t.Errorf("%d messages of refused batches were handled", runs.Load())
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if e := status.Parse(c.call(t.Context(), batchHeader(id), []byte(one)).Header.Get("micro-error")); e == nil || e.Code != 503 || !e.Refused {
		t.Errorf("after Close: %v, want 503", e)
	}
}

func FuzzBatch(f *testing.F) {
	f.Add(documented)
	f.Add([]byte("\x01\x00\x01\x00\x02{}"))
	f.Add([]byte("\x01\x00\x01\x01\x02\xff\xff\x00"))
	f.Add(append(slices.Clone(documented), documented...))
	reg := memory.New()
	b, err := http.New(reg, http.Options{MaxMessage: 1 << 10})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = b.Close(); _ = reg.Close() })
	c := &calls{}
	if err := b.Attach(c); err != nil {
		f.Fatal(err)
	}
	var handled, size atomic.Int64
	_, err = b.Subscribe(f.Context(), "topic", func(_ context.Context, m *broker.Message) error {
		handled.Add(1)
		size.Add(int64(len(m.Body)))
		if _, err := metadata.Parse(m.Header); err != nil {
			return err
		}
		return broker.CheckTopic(m.Topic)
	})
	if err != nil {
		f.Fatal(err)
	}
	nodes, err := reg.Get(f.Context(), registry.BrokerService)
	if err != nil {
		f.Fatal(err)
	}
	header := batchHeader(nodes[0].ID)
	f.Fuzz(func(t *testing.T, data []byte) {
		handled.Store(0)
		size.Store(0)
		was := slices.Clone(data)
		rsp := c.call(t.Context(), header, data)
		refused := rsp.Header.Get("micro-error") != ""
		if refused == (handled.Load() > 0) || len(rsp.Body) > 0 {
			t.Errorf("%d handled, error %q, body %q", handled.Load(), rsp.Header.Get("micro-error"), rsp.Body)
		}
		if size.Load() > int64(len(data)) || !bytes.Equal(data, was) {
			t.Errorf("bodies of %d bytes came of %d; the request changed: %v", size.Load(), len(data), !bytes.Equal(data, was))
		}
	})
}

// counting counts the batches that arrive, and the messages in them.
type counting struct {
	*service
	batches, messages atomic.Int32
}

func (c *counting) HandleCalls(route transport.Router) {
	c.service.HandleCalls(func(header metadata.MD) *transport.Route {
		r := *route(header)
		serve := r.Serve
		r.Serve = func(ctx context.Context, req, rsp *transport.Message) {
			n, _ := binary.Uvarint(req.Body) // of the first segment
			c.messages.Add(int32(n))
			c.batches.Add(1)
			serve(ctx, req, rsp)
		}
		return &r
	})
}

// TestBatchesForm: messages that are published while calls are under way go together in the next.
func TestBatchesForm(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	p := &counting{service: newService(t)}
	to, from := newBroker(t, reg, http.Options{}), newBroker(t, reg, http.Options{})
	if err := to.Attach(p); err != nil {
		t.Fatal(err)
	}
	p.serve()
	subscribe(t, to, "topic", ignore)
	publish(t, from, "topic", "first")
	p.batches.Store(0)
	const publishers, each = 64, 50
	var wg sync.WaitGroup
	for range publishers {
		wg.Go(func() {
			for range each {
				if r := publish(t, from, "topic", "x"); r.Delivered() != 1 {
					t.Error(r.Err())
				}
			}
		})
	}
	wg.Wait()
	if n := p.batches.Load(); n > publishers*each/2 {
		t.Errorf("%d messages came in %d batches", publishers*each, n)
	}
}

// TestKilledInTheMidst: a subscriber dies with a batch half handled. What it had may have been handled, and goes to no
// other member; what it had not been sent does.
func TestKilledInTheMidst(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	p := newService(t)
	doomed, other := newBroker(t, reg, http.Options{}), newBroker(t, reg, http.Options{})
	if err := doomed.Attach(p); err != nil {
		t.Fatal(err)
	}
	p.serve()
	var mu sync.Mutex
	handled := map[string]int{}
	note := func(m *broker.Message) {
		mu.Lock()
		defer mu.Unlock()
		handled[string(m.Body)]++
	}
	var count atomic.Int32
	entered, leave := make(chan struct{}), make(chan struct{})
	subscribe(t, doomed, "topic", func(_ context.Context, m *broker.Message) error {
		note(m)
		if count.Add(1) == 10 {
			close(entered)
			<-leave
		}
		return nil
	}, broker.Queue("mail"), broker.Concurrency(1))
	node := onlyNode(t, reg)
	const n = 60
	ms := make([]*broker.Message, n)
	for i := range ms {
		ms[i] = &broker.Message{Topic: "topic", Body: []byte(strconv.Itoa(i))}
	}
	reports := make(chan broker.Report, 1)
	ctx := t.Context()
	go func() {
		r, err := other.Publish(ctx, ms...)
		if err != nil {
			t.Error(err)
		}
		reports <- r
	}()
	await(t, "the tenth handler runs", entered)
	subscribe(t, other, "topic", func(_ context.Context, m *broker.Message) error { note(m); return nil }, broker.Queue("mail"))
	killed := make(chan struct{})
	go func() { p.kill(); close(killed) }()
	r := await(t, "Publish returns", reports)
	close(leave)
	await(t, "the service has ended", killed)
	if len(r.Deliveries) != 1 || r.Deliveries[0].Last != n-1 || r.Deliveries[0].Subscriber != node.ID ||
		r.Err() == nil || isUnavailable(r.Err()) || !strings.Contains(r.Err().Error(), "may have handled") {
		t.Errorf("deliveries %+v, want one error that says that all may have been handled", r.Deliveries)
	}
	for range 20 { // the dead one is tried, and known to be dead
		r, err := other.Publish(t.Context(), ms...)
		if err != nil || r.Delivered() != n {
			t.Fatalf("after it: %v, %v, want all at the other member", err, r.Err())
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for i := range n {
		if got := handled[strconv.Itoa(i)]; got < 20 || got > 21 {
			t.Errorf("message %d was handled %d times, want 20, or 21 where the dead one has", i, got)
		}
	}
}

// TestBrokenConnection: a connection that ended between two messages is replaced, and nothing is lost.
func TestBrokenConnection(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	p := newService(t)
	to, from := newBroker(t, reg, http.Options{}), newBroker(t, reg, http.Options{})
	if err := to.Attach(p); err != nil {
		t.Fatal(err)
	}
	p.serve()
	subscribe(t, to, "topic", ignore)
	for range 20 {
		if r := publish(t, from, "topic", "x"); r.Delivered() != 1 {
			t.Fatal(r.Err())
		}
		p.cut()
		time.Sleep(5 * time.Millisecond) // for the end to arrive: before it, a message is lost, and told so
	}
}

// cut breaks the connections that were accepted.
func (p *service) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
		delete(p.conns, c)
	}
}

// TestReusedPortOfBatches: another program has the port of a subscriber that took batches.
func TestReusedPortOfBatches(t *testing.T) {
	t.Parallel()
	stranger := newService(t) // a service of this make, which knows no such subscription
	stranger.HandleCalls(func(metadata.MD) *transport.Route {
		return &transport.Route{Serve: func(_ context.Context, _, rsp *transport.Message) { rsp.Body = append(rsp.Body, "ok"...) }}
	})
	stranger.serve()
	plain := httptest.NewServer(nethttp.HandlerFunc(func(nethttp.ResponseWriter, *nethttp.Request) {})) // says 200 to anything
	t.Cleanup(plain.Close)
	for name, address := range map[string]string{"service": stranger.Addr(), "http": plain.Listener.Addr().String(), "dead": deadAddress(t)} {
		t.Run(name, func(t *testing.T) {
			reg := newRegistry(t)
			for id, queue := range map[string]string{"alone-1": "ff.http.broadcast", "member-1": "mail"} {
				err := reg.Register(t.Context(), registry.Node{
					ID: id, Service: registry.BrokerService, Version: queue, Address: address,
					Metadata: map[string]string{"broker": "http", "topic": "topic", "ack": "true", "frames": "true"},
				}, 0)
				if err != nil {
					t.Fatal(err)
				}
			}
			b := newBroker(t, reg, http.Options{})
			var handled atomic.Int32
			subscribe(t, b, "topic", func(context.Context, *broker.Message) error { handled.Add(1); return nil }, broker.Queue("mail"))
			for range 10 {
				r, err := b.Publish(t.Context(), message("1"), message("2"), message("3"))
				if err != nil || r.Delivered() != 3 || !isUnavailable(r.Err()) {
					t.Fatalf("%v, %+v, want the queue's messages well, and the others not", err, r.Deliveries)
				}
			}
			if handled.Load() != 30 {
				t.Errorf("%d handled, want 30", handled.Load())
			}
		})
	}
}

func message(body string) *broker.Message {
	return &broker.Message{Topic: "topic", Header: metadata.Of("content-type", "text/plain"), Body: []byte(body)}
}

// TestLargeAmongSmall: a message that is too large for a batch is posted, in its place.
func TestLargeAmongSmall(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	b := newBroker(t, reg, http.Options{})
	var sizes []int
	subscribe(t, b, "topic", func(_ context.Context, m *broker.Message) error { sizes = append(sizes, len(m.Body)); return nil }, broker.Concurrency(1))
	want := []int{1, broker.MaxMessage, 2, 1 << 20, 3}
	var ms []*broker.Message
	for _, n := range want {
		ms = append(ms, message(strings.Repeat("x", n)))
	}
	for range 2 {
		sizes = nil
		r, err := b.Publish(t.Context(), ms...)
		if err != nil || r.Delivered() != len(ms) || !slices.Equal(sizes, want) {
			t.Errorf("%v, %v: sizes %v, want %v", err, r.Err(), sizes, want)
		}
		ms, want = ms[2:], want[2:] // in batches
	}
}

// TestPublisherLeavesInTheMidst: the report tells what was not begun, and that is not begun later.
func TestPublisherLeavesInTheMidst(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	b := newBroker(t, reg, http.Options{})
	entered, leave := make(chan struct{}, 100), make(chan struct{})
	var runs atomic.Int32
	sub := subscribe(t, b, "topic", func(context.Context, *broker.Message) error {
		runs.Add(1)
		entered <- struct{}{}
		<-leave
		return nil
	}, broker.Concurrency(1))
	ctx, cancel := context.WithCancel(t.Context())
	reports := make(chan broker.Report, 1)
	go func() {
		r, err := b.Publish(ctx, message("1"), message("2"), message("3"))
		if err != nil {
			t.Error(err)
		}
		reports <- r
	}()
	await(t, "the first handler runs", entered)
	cancel()
	if r := await(t, "Publish returns", reports); r.Delivered() != 0 || !errors.Is(r.Err(), context.Canceled) {
		t.Errorf("%+v, want context.Canceled", r.Deliveries)
	}
	// The subscriber has been told when it has room again: the rest of the batch is let go, and the hung handler alone
	// holds its place.
	eventually(t, "the batch is given up", func() bool {
		return errors.Is(publish(t, b, "topic", "x").Err(), broker.ErrBusy)
	})
	close(leave)
	if err := sub.Close(); err != nil {
		t.Error(err)
	}
	if n := runs.Load(); n != 1 {
		t.Errorf("%d handlers ran, want 1", n)
	}
}

func ExampleBroker_Publish() {
	reg := memory.New()
	defer reg.Close()
	b, err := http.New(reg, http.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer b.Close()
	ctx := context.Background()
	_, err = b.Subscribe(ctx, "orders", func(_ context.Context, m *broker.Message) error {
		if string(m.Body) == "two" {
			return status.New(409, "sold out")
		}
		return nil
	}, broker.Queue("stock"))
	if err != nil {
		fmt.Println(err)
		return
	}
	var ms []*broker.Message
	for _, text := range []string{"one", "two", "three"} {
		ms = append(ms, &broker.Message{Topic: "orders", Body: []byte(text)})
	}
	report, err := b.Publish(ctx, ms...)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, d := range report.Deliveries {
		fmt.Printf("%s: messages %d to %d: %v\n", d.Queue, d.First, d.Last, d.Err)
	}
	// Output:
	// stock: messages 0 to 0: <nil>
	// stock: messages 1 to 1: 409 Conflict: sold out
	// stock: messages 2 to 2: <nil>
}

// TestReuse: with broker.Reuse messages are whole while their handlers run, also that of a handler that was left behind.
func TestReuse(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	b := newBroker(t, reg, http.Options{})
	hung, release := make(chan *broker.Message, 1), make(chan struct{})
	after := make(chan string, 1)
	var wrong atomic.Int32
	sub := subscribe(t, b, "topic", func(_ context.Context, m *broker.Message) error {
		if string(m.Body) == "hang" {
			hung <- m
			<-release
			after <- m.ID + " " + string(m.Body) + " " + m.Header.Get("n")
			return nil
		}
		if n := m.Header.Get("n"); n == "" || !bytes.Equal(m.Body, bytes.Repeat([]byte(n), 50)) {
			wrong.Add(1)
		}
		clear(m.Body)
		m.Header, m.Body = nil, nil
		return nil
		// The time is long enough for quick handlers on a busy machine, and the places for all messages at once: with fewer, handlers that
		// do not get their turn at a processor take them all, and a batch is refused as busy.
	}, broker.Reuse(), broker.Timeout(2*time.Second), broker.Concurrency(500))
	batch := func(round int) []*broker.Message {
		var ms []*broker.Message
		for i := range 100 {
			n := fmt.Sprintf("%d-%d", round, i%3)
			ms = append(ms, &broker.Message{Topic: "topic", Header: metadata.Of("n", n), Body: bytes.Repeat([]byte(n), 50)})
		}
		return ms
	}
	ms := batch(0)
	ms[50] = &broker.Message{Topic: "topic", ID: "my", Header: metadata.Of("n", "x"), Body: []byte("hang")}
	r, err := b.Publish(t.Context(), ms...)
	if err != nil || r.Delivered() != 99 || !errors.Is(r.Of(50).Err(), &status.Error{Code: status.HandlerTimeout}) {
		t.Fatalf("%v, %d delivered: %v, want a timeout of message 50", err, r.Delivered(), r.Err())
	}
	var wg sync.WaitGroup
	for p := range 4 {
		wg.Go(func() {
			for round := range 50 {
				if r, err := b.Publish(t.Context(), batch(p*100+round)...); err != nil || r.Delivered() != 100 {
					t.Errorf("%v, %v", err, r.Err())
				}
			}
		})
	}
	wg.Wait()
	close(release)
	if got := await(t, "the hung handler returns", after); got != "my hang x" {
		t.Errorf("the message of the handler that was left behind became %q", got)
	}
	if err := sub.Close(); err != nil {
		t.Error(err)
	}
	if n := wrong.Load(); n != 0 {
		t.Errorf("%d messages came damaged", n)
	}
}
