package http_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/http"
)

// TestGivenUpSendSparesTheOthers: a Send whose caller gives up, while the peer does not read, leaves a connection on
// which the next message arrives whole.
func TestGivenUpSendSparesTheOthers(t *testing.T) {
	t.Parallel()
	const large = 32 << 20 // more than the buffers of the system hold
	for name, o := range map[string]http.Options{
		"TCP": {MaxMessage: large},
		"TLS": {MaxMessage: large, TLSConfig: localTLS(t)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tr := newTransport(t, o)
			l, err := tr.Listen(t.Context(), "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			accepted := make(chan transport.Conn, 1)
			go func() {
				c, err := l.Accept()
				if err != nil {
					close(accepted)
					return
				}
				accepted <- c
			}()
			client, err := tr.Dial(t.Context(), l.Addr())
			if err != nil {
				t.Fatal(err)
			}
			server := <-accepted
			t.Cleanup(func() { client.Close(); server.Close(); l.Close() })
			ctx, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer stop()
			err = client.Send(ctx, &transport.Message{Kind: transport.Call, ID: 1, Body: make([]byte, large)})
			if !errors.Is(err, context.DeadlineExceeded) || !transport.NotSent(err) {
				t.Fatalf("Send that gave up: %v", err)
			}
			sent := make(chan error, 1)
			go func() {
				sent <- client.Send(context.Background(), &transport.Message{Kind: transport.Call, ID: 2, Body: []byte("small")})
			}()
			ctx, stop = context.WithTimeout(t.Context(), 20*time.Second)
			defer stop()
			var m transport.Message
			if err := server.Recv(ctx, &m); err != nil || m.ID != 2 || string(m.Body) != "small" {
				t.Errorf("the next message: %v, call %d, %d bytes", err, m.ID, len(m.Body))
			}
			if err := <-sent; err != nil {
				t.Errorf("the next Send: %v", err)
			}
		})
	}
}

// TestGivenUpCallIsCancelled: a call that was given up in its last frame arrives, and so does the word that nobody waits.
func TestGivenUpCallIsCancelled(t *testing.T) {
	t.Parallel()
	tr := newTransport(t, http.Options{})
	l, err := tr.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan transport.Conn, 1)
	go func() {
		if c, err := l.Accept(); err == nil {
			accepted <- c
		}
	}()
	conn, err := tr.Dial(t.Context(), l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	server := <-accepted
	calls := transport.NewCaller(conn)
	t.Cleanup(func() { calls.Close(); server.Close(); l.Close() })
	body := make([]byte, 60_000)                      // one frame
	for err := error(nil); !transport.NotSent(err); { // until the system's buffers are full
		ctx, stop := context.WithTimeout(t.Context(), 5*time.Millisecond)
		err = calls.Call(ctx, &transport.Message{Body: body}, new(transport.Message))
		stop()
	}
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	called, canceled := map[uint32]bool{}, map[uint32]bool{}
	for len(canceled) < len(called) || len(called) == 0 {
		var m transport.Message
		if err := server.Recv(ctx, &m); err != nil {
			t.Fatalf("%v: of %d calls %d were cancelled", err, len(called), len(canceled))
		}
		switch m.Kind {
		case transport.Call:
			called[m.ID] = true
		case transport.Cancel:
			canceled[m.ID] = true
		}
	}
}

// TestLateConnectionIsRefused: a client whose connection was upgraded in the moment of the shutdown is told that its call
// did not run.
func TestLateConnectionIsRefused(t *testing.T) {
	t.Parallel()
	tr := newTransport(t, http.Options{})
	l, err := tr.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan transport.Conn, 1)
	go func() {
		if c, err := l.Accept(); err == nil {
			accepted <- c
		}
	}()
	first, err := tr.Dial(t.Context(), l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	defer (<-accepted).Close()
	late, err := tr.Dial(t.Context(), l.Addr()) // nobody accepts it
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	if err := late.Send(t.Context(), &transport.Message{Kind: transport.Call, ID: 1, Header: metadata.Of(transport.HeaderEndpoint, "Say.Hello")}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- l.(transport.Shutdowner).Shutdown(ctx) }()
	for {
		var m transport.Message
		if err := late.Recv(ctx, &m); err != nil {
			t.Fatalf("the call was not answered: %v", err)
		}
		if m.Kind == transport.Reply {
			if e := status.Parse(m.Header.Get(transport.HeaderError)); e == nil || !e.Refused {
				t.Errorf("the call was answered with %v", e)
			}
			break
		}
	}
	first.Close()
	if err := <-done; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}
