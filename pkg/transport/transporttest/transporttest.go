// Package transporttest is the suite that every backend of package transport passes.
//
// A backend's test is one call of [Run] with a function that makes a [Harness]. What a backend cannot do it says in the
// Harness, and the tests of that are skipped. Such a test package also checks for leaked goroutines in its TestMain.
package transporttest

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/transport"
)

// patience bounds each wait of the suite: a test that waits longer has failed.
const patience = 20 * time.Second

// Harness is what the suite needs to know of a backend.
type Harness struct {
	// Transport is used by one test alone.
	Transport transport.Transport
	// Address is given to Listen: one that takes any free port or name.
	Address string
	// MaxMessage is the limit of a body. Zero is transport.MaxMessage.
	MaxMessage int
	// NoTimeout says that a message's Timeout is not carried.
	NoTimeout bool
}

// Run runs the suite. open is called once for each test.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	tests := []struct {
		name string
		run  func(t *testing.T, h Harness)
	}{
		{"CallAndReply", testCallAndReply},
		{"EmptyMessage", testEmptyMessage},
		{"SendDoesNotRetain", testSendDoesNotRetain},
		{"RecvReusesStorage", testRecvReusesStorage},
		{"ConcurrentSends", testConcurrentSends},
		{"Stream", testStream},
		{"StreamAfterStream", testStreamAfterStream},
		{"StatusError", testStatusError},
		{"MetadataLimits", testMetadataLimits},
		{"MessageLimit", testMessageLimit},
		{"LargeBesideSmall", testLargeBesideSmall},
		{"Cancel", testCancel},
		{"Ping", testPing},
		{"WrongID", testWrongID},
		{"SendContext", testSendContext},
		{"SendContextInLargeMessage", testSendContextInLargeMessage},
		{"RecvContext", testRecvContext},
		{"Close", testClose},
		{"CloseByPeer", testCloseByPeer},
		{"DialDead", testDialDead},
		{"DialContext", testDialContext},
		{"ListenTaken", testListenTaken},
		{"ListenerClose", testListenerClose},
		{"ShutdownIdle", testShutdownIdle},
		{"ShutdownBusy", testShutdownBusy},
		{"ShutdownContext", testShutdownContext},
		{"Caller", testCaller},
		{"CallerContext", testCallerContext},
		{"CallerConnectionLost", testCallerConnectionLost},
		{"CallerDrained", testCallerDrained},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := open(t)
			if h.MaxMessage == 0 {
				h.MaxMessage = transport.MaxMessage
			}
			test.run(t, h)
		})
	}
}

// bounded gives a context for one wait of a test.
func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), patience)
	t.Cleanup(stop)
	return ctx
}

func listen(t *testing.T, h Harness) transport.Listener {
	t.Helper()
	l, err := h.Transport.Listen(bounded(t), h.Address)
	if err != nil {
		t.Fatalf("Listen(%q): %v", h.Address, err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// connect gives both ends of a connection to a new listener.
func connect(t *testing.T, h Harness) (client, server transport.Conn, l transport.Listener) {
	t.Helper()
	l = listen(t, h)
	client, server = connectTo(t, h, l)
	return client, server, l
}

func connectTo(t *testing.T, h Harness, l transport.Listener) (client, server transport.Conn) {
	t.Helper()
	type accepted struct {
		conn transport.Conn
		err  error
	}
	got := make(chan accepted, 1)
	go func() {
		c, err := l.Accept()
		got <- accepted{c, err}
	}()
	client, err := h.Transport.Dial(bounded(t), l.Addr())
	if err != nil {
		l.Close()
		<-got
		t.Fatalf("Dial(%q): %v", l.Addr(), err)
	}
	t.Cleanup(func() { client.Close() })
	a := <-got
	if a.err != nil {
		t.Fatalf("Accept: %v", a.err)
	}
	t.Cleanup(func() { a.conn.Close() })
	return client, a.conn
}

func send(t *testing.T, c transport.Conn, m *transport.Message) {
	t.Helper()
	if err := c.Send(bounded(t), m); err != nil {
		t.Fatalf("Send of a %s: %v", m.Kind, err)
	}
}

func recv(t *testing.T, c transport.Conn) *transport.Message {
	t.Helper()
	var m transport.Message
	if err := c.Recv(bounded(t), &m); err != nil {
		t.Fatalf("Recv: %v", err)
	}
	return &m
}

func wantKind(t *testing.T, m *transport.Message, kind transport.Kind, id uint32) {
	t.Helper()
	if m.Kind != kind || m.ID != id {
		t.Fatalf("got a %s with id %d, want a %s with id %d", m.Kind, m.ID, kind, id)
	}
}

func wantEOF(t *testing.T, c transport.Conn) {
	t.Helper()
	var m transport.Message
	if err := c.Recv(bounded(t), &m); !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("Recv from a peer that has closed the connection: %v, want io.EOF", err)
	}
}

// wantUsable checks that a connection still carries a call.
func wantUsable(t *testing.T, client, server transport.Conn, id uint32) {
	t.Helper()
	send(t, client, &transport.Message{Kind: transport.Call, ID: id, Body: []byte("still there?")})
	wantKind(t, recv(t, server), transport.Call, id)
	send(t, server, &transport.Message{Kind: transport.Reply, ID: id, Body: []byte("yes")})
	wantKind(t, recv(t, client), transport.Reply, id)
}

// body is a text of n bytes that differs with seed, and whose mixed-up parts are noticed.
func body(n int, seed uint32) []byte {
	b := make([]byte, 0, n+8)
	for x := uint64(seed)*2654435761 + 1; len(b) < n; {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b = binary.LittleEndian.AppendUint64(b, x)
	}
	return b[:n]
}

// echo answers the calls of a connection, each on a goroutine of its own, until it ends. hold, where it is not nil,
// keeps each reply back until it gives something.
func echo(t *testing.T, server transport.Conn, hold <-chan struct{}) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			var m transport.Message
			if server.Recv(context.Background(), &m) != nil {
				return
			}
			if m.Kind != transport.Call {
				continue
			}
			wg.Go(func() {
				if hold != nil {
					<-hold
				}
				reply := transport.Message{Kind: transport.Reply, ID: m.ID, Body: m.Body}
				reply.Header = metadata.Of("echo", m.Header.Get("say"))
				_ = server.Send(context.Background(), &reply) // the test sees what did not come
			})
		}
	})
	t.Cleanup(func() {
		server.Close()
		wg.Wait()
	})
}
