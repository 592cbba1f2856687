package server_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/transport"
)

// TestDirectDrain: calls of a transport.UnaryServer are waited for, and then cut.
func TestDirectDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, server.ShutdownTimeout(3*time.Second), server.HandlerTimeout(time.Hour))
		running := make(chan struct{}, 2)
		_ = server.Handle(s, "Say.Hang", func(ctx context.Context, _ *Hello) (*Greeting, error) {
			running <- struct{}{}
			<-ctx.Done()
			return nil, ctx.Err()
		})
		c := newDirectConn()
		stop := serveDirect(s, c)
		for range 2 {
			go c.with("Say.Hang", `{}`).call(0)
			<-running
		}
		began := time.Now()
		if err := stop(); err == nil || !strings.Contains(err.Error(), "2 calls were cut off") {
			t.Errorf("Serve: %v", err)
		}
		if took := time.Since(began); took < 3*time.Second || took > 4*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// TestDirectFailure: the end of a connection is logged where it was not closed.
func TestDirectFailure(t *testing.T) {
	errBroken := errors.New("broken")
	for _, end := range []error{io.EOF, transport.ErrClosed, errBroken} {
		var log bytes.Buffer
		s, err := server.New("greeter", server.Logger(slog.New(slog.NewTextHandler(&log, nil))))
		if err != nil {
			t.Fatal(err)
		}
		c := newDirectConn()
		c.err = end
		stop := serveDirect(s, c)
		_ = c.Close()
		<-c.left
		if err := stop(); err != nil {
			t.Error(err)
		}
		if failed := strings.Contains(log.String(), `msg="connection failed" service=greeter remote=peer:1 error=broken`); failed != (end == errBroken) {
			t.Errorf("%v: %s", end, log.String())
		}
	}
}

// halfDirect is a connection whose first message is a stream's.
type halfDirect struct{ transport.Conn }

func (halfDirect) ServeCalls(context.Context, transport.Router) error { return nil }

type halfListener struct{ transport.Listener }

func (l halfListener) Accept() (transport.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return halfDirect{c}, nil
}

// TestStreamOfUnaryServer: a connection that answers calls itself is read for its streams.
func TestStreamOfUnaryServer(t *testing.T) {
	s := newServer(t)
	_ = s.Handle(server.Endpoint{Name: "Say.Echo", Kind: server.Bidi}, func(_ context.Context, c *server.Call) error {
		body, err := c.RecvRaw()
		if err != nil {
			return err
		}
		return c.SendRaw("", body)
	})
	l, dial := listen(t)
	stop := serve(s, halfListener{l})
	c := dial()
	id := open(t, c, "Say.Echo")
	if err := c.Send(t.Context(), &transport.Message{Kind: transport.Data, ID: id, Body: []byte("hi")}); err != nil {
		t.Fatal(err)
	}
	var m transport.Message
	if next(t, c, &m); string(m.Body) != "hi" {
		t.Errorf("%v %q %v", m.Kind, m.Body, errorOf(&m))
	}
	_ = c.Close()
	if err := stop(); err != nil {
		t.Error(err)
	}
}
