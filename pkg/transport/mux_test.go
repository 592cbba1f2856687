package transport_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// dialled gives both ends of a connection in memory.
func dialled(t *testing.T) (client, server transport.Conn) {
	t.Helper()
	tr := memory.New()
	l, err := tr.Listen(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	if client, err = tr.Dial(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return client, server
}

// TestSilentServer: a server that is there and does not answer a ping costs its calls 13 seconds, and no more.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client, _ := dialled(t)
		calls := transport.NewCaller(client)
		defer calls.Close()
		start := time.Now()
		var rsp transport.Message
		err := calls.Call(context.Background(), &transport.Message{}, &rsp)
		if err == nil || transport.NotSent(err) || !strings.Contains(err.Error(), "silent") {
			t.Fatalf("Call: %v, want that the server is silent", err)
		}
		if took := time.Since(start); took != 13*time.Second {
			t.Fatalf("Call took %s, want 13s", took)
		}
	})
}

// TestSlowServer: a server that answers pings may take its time.
func TestSlowServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client, server := dialled(t)
		calls := transport.NewCaller(client)
		go func() {
			var m transport.Message
			for server.Recv(context.Background(), &m) == nil {
				reply := transport.Message{Kind: transport.Reply, ID: m.ID}
				time.AfterFunc(time.Minute, func() { _ = server.Send(context.Background(), &reply) })
			}
		}()
		var rsp transport.Message
		if err := calls.Call(context.Background(), &transport.Message{}, &rsp); err != nil {
			t.Fatalf("Call: %v", err)
		}
		time.Sleep(time.Hour) // no call waits: no pings, and the connection lives
		if err := calls.Call(context.Background(), &transport.Message{}, &rsp); err != nil {
			t.Fatalf("Call after an hour: %v", err)
		}
		calls.Close()
		server.Close()
	})
}

// TestWrongAnswer: an answer to a call that was never made breaks the connection, also where the transport lets it through.
func TestWrongAnswer(t *testing.T) {
	t.Parallel()
	for _, m := range []*transport.Message{{Kind: transport.Reply, ID: 99}, {Kind: transport.Reply}, {Kind: transport.Data, ID: 1}} {
		client, server := dialled(t)
		calls := transport.NewCaller(client)
		got := make(chan error, 1)
		go func() {
			var rsp transport.Message
			got <- calls.Call(context.Background(), &transport.Message{}, &rsp)
		}()
		var call transport.Message
		if err := server.Recv(t.Context(), &call); err != nil {
			t.Fatal(err)
		}
		if err := server.Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		if err := <-got; !errors.Is(err, transport.ErrProtocol) || transport.NotSent(err) {
			t.Errorf("Call that was answered by a %s with id %d: %v, want ErrProtocol", m.Kind, m.ID, err)
		}
		calls.Close()
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		m    transport.Message
		want error
	}{
		"empty":            {transport.Message{}, nil},
		"at the limit":     {transport.Message{Body: make([]byte, 10), Header: metadata.Of("a", "b")}, nil},
		"body over":        {transport.Message{Body: make([]byte, 11)}, transport.ErrTooLarge},
		"header over":      {transport.Message{Header: make(metadata.MD, metadata.MaxSize+1)}, transport.ErrTooLarge},
		"header malformed": {transport.Message{Header: metadata.MD("x")}, transport.ErrNotSent},
	} {
		if err := transport.Check(&test.m, 10); !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
			t.Errorf("%s: Check: %v, want %v", name, err, test.want)
		}
	}
}
