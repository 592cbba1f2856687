package server_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// TestKeptByHandlers: contexts and metadata that a handler kept do not change when it has returned, and end with it.
func TestKeptByHandlers(t *testing.T) {
	s := newServer(t)
	var kept sync.WaitGroup
	release := make(chan struct{})
	_ = server.Handle(s, "Say.Hello", hello)
	_ = server.Handle(s, "Say.Keep", func(ctx context.Context, in *Hello) (*Greeting, error) {
		deadline, _ := ctx.Deadline()
		md := metadata.Incoming(ctx)
		if ctx.Err() != nil || md.Get("name") != in.Name {
			t.Errorf("%v %q, want %s", ctx.Err(), md, in.Name)
		}
		kept.Go(func() {
			if len(in.Name)%2 == 0 {
				<-ctx.Done()
			}
			<-release // calls go on meanwhile
			again, _ := ctx.Deadline()
			if !errors.Is(ctx.Err(), context.Canceled) || !again.Equal(deadline) {
				t.Errorf("%s: %v, deadline %v, was %v", in.Name, ctx.Err(), again, deadline)
			}
			if metadata.Incoming(ctx).Get("name") != in.Name || md.Get("name") != in.Name {
				t.Errorf("%s: metadata %q, %q", in.Name, metadata.Incoming(ctx), md)
			}
		})
		return &Greeting{}, nil
	})
	c := direct(t, s)
	d, other := c.with("Say.Keep", ""), c.with("Say.Hello", `{}`)
	for i := range 200 {
		name := strconv.Itoa(i)
		d.values, d.req.Body = &came{metadata.Of("name", name)}, fmt.Appendf(d.req.Body[:0], `{"name":%q}`, name)
		if d.call(time.Minute); errorOf(&d.rsp) != nil {
			t.Fatal(errorOf(&d.rsp))
		}
	}
	close(release)
	for range 200 {
		other.call(time.Minute)
	}
	kept.Wait()
}

// TestHandlerLeftBehind: a handler that its middleware no longer waits for has nothing of the calls that come after it.
func TestHandlerLeftBehind(t *testing.T) {
	var left sync.WaitGroup
	release := make(chan struct{})
	s := newServer(t, server.WithMiddleware(func(next server.Handler) server.Handler {
		return func(ctx context.Context, c *server.Call) error {
			if c.Endpoint() != "Say.Late" {
				return next(ctx, c)
			}
			left.Go(func() {
				if err := next(ctx, c); err == nil {
					t.Error("the handler that was left behind has sent an answer")
				}
			})
			return status.New(status.HandlerTimeout, "too slow")
		}
	}))
	_ = s.Handle(server.Endpoint{Name: "Say.Late"}, func(_ context.Context, c *server.Call) error {
		<-release
		if _, err := c.RecvRaw(); err == nil {
			t.Error("it received")
		}
		if c.SetHeader("late", "x") == nil || c.SendRaw("", []byte("late")) == nil {
			t.Error("it sent")
		}
		return c.Send(&Greeting{Msg: "late"})
	})
	_ = server.Handle(s, "Say.Hello", hello)
	c := direct(t, s)
	late, d := c.with("Say.Late", ""), c.with("Say.Hello", `{"name":"x"}`)
	for range 50 {
		if late.call(0); errorOf(&late.rsp) == nil || errorOf(&late.rsp).Code != status.HandlerTimeout {
			t.Fatal(errorOf(&late.rsp))
		}
	}
	close(release)
	for range 50 {
		if d.call(0); string(d.rsp.Body) != `{"msg":"Hello x"}` || d.rsp.Header.Len() != 1 {
			t.Fatalf("%q %q", d.rsp.Header, d.rsp.Body)
		}
	}
	left.Wait()
}

// TestDirectEvents: an event that came as a call is its handler's to keep.
func TestDirectEvents(t *testing.T) {
	s := newServer(t)
	var kept []*broker.Message
	_ = s.Subscribe("events", func(ctx context.Context, c *server.Call) error {
		if c.Header().Get("token") != "t1" || c.Remote() != "peer:1" || c.Topic() != "events" || c.Kind() != server.Unary || c.Endpoint() != "events" {
			t.Errorf("%q %s", c.Header(), c.Topic())
		}
		kept = append(kept, c.Message())
		if body, err := c.RecvRaw(); err != nil || string(body) != string(c.Message().Body) {
			t.Errorf("%q %v", body, err)
		}
		if err := c.Send(&Greeting{}); status.CodeOf(err) != status.Unimplemented {
			t.Errorf("an event was answered: %v", err)
		}
		return nil
	})
	_ = server.Subscribe(s, "events", func(_ context.Context, in *Hello) error {
		if in.Name == "" {
			t.Error("nothing came")
		}
		return nil
	})
	d := direct(t, s).with("", "", transport.HeaderTopic, "events", transport.HeaderID, "id-1")
	d.values = &came{metadata.Of("token", "t1")}
	for i := range 3 {
		d.req.Body = fmt.Appendf(d.req.Body[:0], `{"name":"%d"}`, i)
		if d.call(0); errorOf(&d.rsp) != nil || len(d.rsp.Header) > 0 || len(d.rsp.Body) > 0 {
			t.Fatalf("%q %q", d.rsp.Header, d.rsp.Body)
		}
	}
	for i, m := range kept {
		if string(m.Body) != fmt.Sprintf(`{"name":"%d"}`, i) || m.ID != "id-1" || m.Topic != "events" ||
			m.Header.Get("token") != "t1" || m.Header.Get("content-type") != "application/json" || m.Header.Len() != 2 {
			t.Errorf("message %d: %+v", i, m)
		}
	}
}
