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

// connected gives both ends of a connection, and the listener. They are closed when the test has ended.
func connected(t *testing.T, tr *http.Transport) (client, server transport.Conn, l transport.Listener) {
	t.Helper()
	l, err := tr.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan transport.Conn, 1)
	go func() {
		defer close(accepted)
		if c, err := l.Accept(); err == nil {
			accepted <- c
		}
	}()
	if client, err = tr.Dial(t.Context(), l.Addr()); err != nil {
		t.Fatal(errors.Join(err, l.Close()))
	}
	server, ok := <-accepted
	if !ok {
		t.Fatal("the connection was not accepted")
	}
	t.Cleanup(func() { client.Close(); server.Close(); l.Close() })
	return client, server, l
}

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
			client, server, _ := connected(t, newTransport(t, o))
			ctx, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer stop()
			err := client.Send(ctx, &transport.Message{Kind: transport.Call, ID: 1, Body: make([]byte, large)})
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
	client, server, _ := connected(t, newTransport(t, http.Options{}))
	calls := transport.NewCaller(client)
	t.Cleanup(func() { calls.Close() })
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
	first, _, l := connected(t, tr)
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
