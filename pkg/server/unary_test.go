package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// TestDirectErrors: what a call over a transport.UnaryServer is refused with is what it is refused with elsewhere, at each
// call of the same route.
func TestDirectErrors(t *testing.T) {
	s := newServer(t, server.MaxCalls(1))
	_ = server.Handle(s, "Say.Hello", hello)
	_ = server.Handle(s, "Say.Panic", func(context.Context, *Hello) (*Greeting, error) { panic("secret") })
	_ = server.Handle(s, "Say.Plain", func(context.Context, *Hello) (*Greeting, error) { return nil, errors.New("secret") })
	_ = s.Handle(server.Endpoint{Name: "Say.Mute"}, func(context.Context, *server.Call) error { return nil })
	_ = s.Handle(server.Endpoint{Name: "Say.Twice"}, func(_ context.Context, c *server.Call) error {
		return errors.Join(c.Send(&Greeting{"first"}), c.Send(&Greeting{"second"}))
	})
	_ = server.HandleBidi(s, "Say.Chat", func(context.Context, *server.Stream[Hello, Greeting]) error { return nil })
	_ = server.Subscribe(s, "events", func(context.Context, *Hello) error { return errors.New("secret") })
	c := direct(t, s)
	for name, tt := range map[string]struct {
		call    *directCall
		code    status.Code
		detail  string
		refused bool
	}{
		"unknown endpoint":  {c.with("Say.Nope", `{}`), status.NotFound, `no endpoint "Say.Nope"`, true},
		"another service":   {c.with("Say.Hello", `{}`, transport.HeaderService, "orders"), status.Misdirected, "this is greeter, not orders", true},
		"another's event":   {c.with("", `{}`, transport.HeaderTopic, "events", transport.HeaderService, "orders"), status.Misdirected, "not orders", true},
		"content type":      {c.with("Say.Hello", `{}`, transport.HeaderContentType, "text/x"), status.UnsupportedMedia, "application/json", false},
		"not JSON":          {c.with("Say.Hello", `{"name":`), status.InvalidArgument, "does not decode", false},
		"panic":             {c.with("Say.Panic", `{}`), status.Internal, "panicked", false},
		"plain error":       {c.with("Say.Plain", `{}`), status.Internal, "the handler failed", false},
		"no answer":         {c.with("Say.Mute", `{}`), status.Internal, "sent no answer", false},
		"two answers":       {c.with("Say.Twice", `{}`), status.Internal, "sent twice", false},
		"a stream called":   {c.with("Say.Chat", `{}`), status.Unimplemented, "stream", false},
		"no subscriber":     {c.with("", `{}`, transport.HeaderTopic, "none"), status.NotFound, "no subscriber", true},
		"a failing handler": {c.with("", `{}`, transport.HeaderTopic, "events"), status.Internal, "the handler failed", false},
	} {
		for range 3 {
			tt.call.call(time.Second)
			e := errorOf(&tt.call.rsp)
			if e == nil || e.Code != tt.code || !strings.Contains(e.Detail, tt.detail) || e.Refused != tt.refused || e.ID != "greeter" {
				t.Errorf("%s: got %+v, want code %d with %q, refused %v", name, e, tt.code, tt.detail, tt.refused)
			}
			if len(tt.call.rsp.Body) > 0 || strings.Contains(string(tt.call.rsp.Header), "secret") {
				t.Errorf("%s: %q, body %q", name, tt.call.rsp.Header, tt.call.rsp.Body)
			}
		}
	}
	d := c.with("Say.Hello", `{"name":"x"}`)
	if d.call(time.Nanosecond); errorOf(&d.rsp) == nil || errorOf(&d.rsp).Code != status.DeadlineExceeded || !errorOf(&d.rsp).Refused {
		t.Errorf("a call without time: %v", errorOf(&d.rsp))
	}
	if d.call(0); errorOf(&d.rsp) != nil || string(d.rsp.Body) != `{"msg":"Hello x"}` {
		t.Errorf("the call after it: %v", errorOf(&d.rsp))
	}
	s.Stop()
	if d.call(0); errorOf(&d.rsp) == nil || errorOf(&d.rsp).Code != status.Unavailable || !errorOf(&d.rsp).Refused {
		t.Errorf("while stopping: %v", errorOf(&d.rsp))
	}
	health := c.with("Debug.Health", `{}`)
	if health.call(0); string(health.rsp.Body) != `{"status":"stopping"}` {
		t.Errorf("Debug.Health: %s %v", health.rsp.Body, errorOf(&health.rsp))
	}
}

// TestDirectOverload: limits hold for the calls of a route, and Debug.* has a share of its own.
func TestDirectOverload(t *testing.T) {
	s := newServer(t, server.MaxCalls(1))
	running, release := make(chan struct{}), make(chan struct{})
	_ = server.Handle(s, "Say.Wait", func(context.Context, *Hello) (*Greeting, error) {
		running <- struct{}{}
		<-release
		return nil, nil
	})
	c := direct(t, s)
	first, second, health := c.with("Say.Wait", `{}`), c.with("Say.Wait", `{}`), c.with("Debug.Health", `{}`)
	done := make(chan struct{})
	go func() { defer close(done); first.call(0) }()
	<-running
	second.call(0)
	if e := errorOf(&second.rsp); e == nil || e.Code != status.ResourceExhausted || !e.Refused {
		t.Errorf("beyond the limit: %v", e)
	}
	if health.call(0); string(health.rsp.Body) != `{"status":"ok"}` {
		t.Errorf("Debug.Health of a full server: %s %v", health.rsp.Body, errorOf(&health.rsp))
	}
	close(release)
	<-done
	if e := errorOf(&first.rsp); e != nil {
		t.Errorf("the first call: %v", e)
	}
}

// TestSetHeader: headers of an answer stand beside its content type, and are not the next answer's.
func TestSetHeader(t *testing.T) {
	s := newServer(t)
	set := true
	_ = s.Handle(server.Endpoint{Name: "Say.Raw"}, func(_ context.Context, c *server.Call) error {
		if set {
			if err := c.SetHeader("trace", "42"); err != nil {
				return err
			}
		}
		return c.Send(&Greeting{})
	})
	d := direct(t, s).with("Say.Raw", ``)
	d.call(0)
	if d.rsp.Header.Get("trace") != "42" || d.rsp.Header.Get(transport.HeaderContentType) != "application/json" || d.rsp.Header.Len() != 2 {
		t.Errorf("%q", d.rsp.Header)
	}
	set = false
	if d.call(0); d.rsp.Header.Len() != 1 || d.rsp.Header.Get(transport.HeaderContentType) != "application/json" {
		t.Errorf("the next: %q", d.rsp.Header)
	}
}

// TestPace: what the options say reaches the transport, and what it learns is the endpoint's, whoever calls.
func TestPace(t *testing.T) {
	s := newServer(t)
	_ = server.Handle(s, "Say.Fast", hello, server.Inline())
	_ = server.Handle(s, "Say.Slow", hello, server.Blocking())
	_ = server.Handle(s, "Say.Hello", hello)
	_ = s.Handle(server.Endpoint{Name: "Say.Raw"}, func(context.Context, *server.Call) error { return nil }, server.Blocking())
	_ = server.Subscribe(s, "events", func(context.Context, *Hello) error { return nil })
	c := direct(t, s)
	for name, tt := range map[string]struct {
		call *directCall
		mode transport.PaceMode
	}{
		"Inline":     {c.with("Say.Fast", ""), transport.PaceInline},
		"Blocking":   {c.with("Say.Slow", ""), transport.PaceGoroutine},
		"by itself":  {c.with("Say.Hello", ""), transport.PaceAdaptive},
		"raw":        {c.with("Say.Raw", ""), transport.PaceGoroutine},
		"debug":      {c.with("Debug.Stats", ""), transport.PaceGoroutine},
		"an event":   {c.with("", "", transport.HeaderTopic, "events"), transport.PaceAdaptive},
		"no handler": {c.with("Say.Nope", ""), transport.PaceInline},
	} {
		if !reflect.DeepEqual(tt.call.route.Pace, transport.NewPace(tt.mode)) {
			t.Errorf("%s: %+v, want mode %d", name, tt.call.route.Pace, tt.mode)
		}
		if again := c.router(tt.call.req.Header); again.Pace != tt.call.route.Pace {
			t.Errorf("%s: another route has another pace", name)
		}
	}
}

// TestManyRoutes: more headers than the server remembers lead where they should.
func TestManyRoutes(t *testing.T) {
	s := newServer(t)
	_ = server.Handle(s, "Say.Hello", hello)
	c := direct(t, s)
	first := c.with("Say.Hello", `{"name":"x"}`)
	for i := range 5000 {
		d := c.with("Say.Hello", `{"name":"x"}`, "micro-other", strconv.Itoa(i))
		if i%1000 == 0 {
			d.call(0)
			first.call(0)
		}
		for _, d := range []*directCall{d, first} {
			if e := errorOf(&d.rsp); e != nil || i%1000 == 0 && string(d.rsp.Body) != `{"msg":"Hello x"}` {
				t.Fatalf("%s %v", d.rsp.Body, e)
			}
		}
	}
}

// TestDirectStats: all calls are counted, also those that are not timed.
func TestDirectStats(t *testing.T) {
	s := newServer(t)
	running, release := make(chan struct{}), make(chan struct{})
	_ = server.Handle(s, "Say.Hello", hello)
	_ = server.Handle(s, "Say.Wait", func(ctx context.Context, _ *Hello) (*Greeting, error) {
		close(running)
		<-release
		return nil, errors.New("x")
	})
	c := direct(t, s)
	d, wait, debug := c.with("Say.Hello", `{}`), c.with("Say.Wait", `{}`), c.with("Debug.Stats", `{}`)
	for range 1000 {
		d.call(0)
	}
	done := make(chan struct{})
	go func() { defer close(done); wait.call(0) }()
	<-running
	var stats server.Stats
	debug.call(0)
	if err := json.Unmarshal(debug.rsp.Body, &stats); err != nil || stats.Calls != 1000 || stats.Inflight != 1 || stats.Endpoints[0].P50 <= 0 {
		t.Errorf("%+v %v", stats, err)
	}
	close(release)
	<-done
	debug.call(0)
	if err := json.Unmarshal(debug.rsp.Body, &stats); err != nil || stats.Calls != 1001 || stats.Inflight != 0 || stats.Errors != 1 {
		t.Errorf("%+v %v", stats, err)
	}
}
