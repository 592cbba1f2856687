package link_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/http/internal/link"
	"github.com/cb02dfca/micro/pkg/transport/internal/frame"
)

// rawServed gives a socket whose peer serves calls, and how that ends.
func rawServed(t testing.TB, route transport.Router) (*net.TCPConn, *link.Conn, <-chan error) {
	t.Helper()
	c, s := sockets(t)
	server := link.New(s, s, options(), nil, true)
	ended := make(chan error, 1)
	go func() { ended <- server.ServeCalls(context.Background(), route) }()
	t.Cleanup(func() {
		c.Close()
		server.Close()
	})
	return c, server, ended
}

// wire gives a frame as it stands on the wire.
func wire(kind transport.Kind, id uint32, flags uint8, section, body []byte) []byte {
	h := frame.Header{Kind: kind, ID: id, Flags: flags, Section: uint16(len(section)), Body: uint32(len(body))}
	return append(append(h.Append(nil), section...), body...)
}

// read reads one frame that is not cut.
func read(t testing.TB, c net.Conn) (frame.Header, metadata.MD, []byte) {
	t.Helper()
	head := make([]byte, frame.HeaderSize)
	if _, err := io.ReadFull(c, head); err != nil {
		t.Fatal(err)
	}
	h, err := frame.Parse(head)
	if err != nil {
		t.Fatal(err)
	}
	rest := make([]byte, int(h.Section)+int(h.Body))
	if _, err := io.ReadFull(c, rest); err != nil {
		t.Fatal(err)
	}
	return h, metadata.MD(rest[:h.Section]), rest[h.Section:]
}

// TestBreaches: what breaks the protocol ends the connection, without a word.
func TestBreaches(t *testing.T) {
	t.Parallel()
	g := newGatekeeper()
	good := wire(transport.Call, 1, 0, callHeader, []byte("wait"))
	for name, data := range map[string][]byte{
		"the id of a call under way": append(bytes.Clone(good), good...),
		"metadata cut off":           wire(transport.Call, 1, 0, []byte{5, 'a'}, nil),
		"metadata in upper case":     wire(transport.Call, 1, 0, []byte{1, 'A', 0, 0}, nil),
		"data of no stream":          wire(transport.Data, 7, 0, nil, []byte("x")),
		"end of no stream":           wire(transport.End, 7, 0, nil, nil),
		"a reply":                    wire(transport.Reply, 1, 0, nil, nil),
		"goaway":                     wire(transport.GoAway, 0, 0, nil, nil),
		"no frame":                   []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"the rest of nothing":        wire(transport.Call, 1, frame.Cont, nil, []byte("x")),
	} {
		c, _, ended := rawServed(t, router(g.serve, transport.PaceGoroutine))
		if _, err := c.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; !errors.Is(err, transport.ErrProtocol) {
			t.Errorf("%s: %v, want ErrProtocol", name, err)
		}
	}
}

// TestStreamNext: a stream's opening ends ServeCalls when the calls before it are answered, and Recv yields it.
func TestStreamNext(t *testing.T) {
	t.Parallel()
	c, server, ended := rawServed(t, router(echo, transport.PaceAdaptive))
	data := wire(transport.Call, 1, 0, callHeader, []byte("x"))
	data = append(data, wire(transport.Open, 2, 0, callHeader, nil)...)
	data = append(data, wire(transport.Data, 2, 0, nil, []byte("first"))...)
	if _, err := c.Write(data); err != nil {
		t.Fatal(err)
	}
	if h, _, body := read(t, c); h.Kind != transport.Reply || string(body) != "x" {
		t.Errorf("got %s %q", h.Kind, body)
	}
	if err := <-ended; err != nil {
		t.Fatalf("ServeCalls: %v", err)
	}
	var m transport.Message
	for _, want := range []transport.Kind{transport.Open, transport.Data} {
		if err := server.Recv(context.Background(), &m); err != nil || m.Kind != want || m.ID != 2 {
			t.Fatalf("Recv: %s %d, %v, want %s", m.Kind, m.ID, err, want)
		}
	}
	if string(m.Body) != "first" {
		t.Errorf("got %q", m.Body)
	}
}

// TestServeEnds: with its context, and leaves the connection as it is.
func TestServeEnds(t *testing.T) {
	t.Parallel()
	_, s := sockets(t)
	server := link.New(s, s, options(), nil, true)
	defer server.Close()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.ServeCalls(ctx, router(echo, transport.PaceAdaptive)) }()
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ServeCalls: %v, want that its context ended", err)
	}
	select {
	case <-server.Done():
		t.Error("the connection has ended")
	default:
	}
}

// TestCancel: a Cancel ends the context of its call, wherever that runs, and of no other.
func TestCancel(t *testing.T) {
	t.Parallel()
	for _, mode := range []transport.PaceMode{transport.PaceAdaptive, transport.PaceInline, transport.PaceGoroutine} {
		g := newGatekeeper()
		c, _, _ := rawServed(t, router(g.serve, mode))
		data := wire(transport.Call, 1, 0, callHeader, []byte("wait"))
		data = append(data, wire(transport.Call, 2, 0, callHeader, []byte("wait"))...)
		data = append(data, wire(transport.Cancel, 2, 0, nil, nil)...)
		data = append(data, wire(transport.Cancel, 9, 0, nil, nil)...)
		data = append(data, wire(transport.Ping, 5, 0, nil, nil)...)
		if _, err := c.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := <-g.ended; !errors.Is(err, context.Canceled) {
			t.Errorf("mode %d: the context ended with %v", mode, err)
		}
		seen := map[transport.Kind]uint32{}
		for range 2 {
			h, _, _ := read(t, c)
			seen[h.Kind] = h.ID
		}
		if seen[transport.Pong] != 5 || seen[transport.Reply] != 2 {
			t.Errorf("mode %d: got %v, want the answers to the ping and to call 2", mode, seen)
		}
		close(g.gate)
		if h, _, _ := read(t, c); h.ID != 1 {
			t.Errorf("mode %d: an answer to %d, want 1", mode, h.ID)
		}
	}
}

// TestSizes: what is over the limit is refused, by a word and not by the end of the connection.
func TestSizes(t *testing.T) {
	t.Parallel()
	for _, mode := range []transport.PaceMode{transport.PaceAdaptive, transport.PaceGoroutine} {
		c, s := sockets(t)
		small, large := options(), options()
		small.MaxMessage = 100_000
		client, server := link.New(c, c, large, nil, false), link.New(s, s, small, nil, true)
		double := func(_ context.Context, req, rsp *transport.Message) {
			rsp.Body = append(append(rsp.Body, req.Body...), req.Body...)
		}
		ended := make(chan error, 1)
		go func() { ended <- server.ServeCalls(context.Background(), router(double, mode)) }()
		for size, refused := range map[int]bool{10: false, 49_000: false, 51_000: true, 99_000: true, 101_000: true, 300_000: true} {
			var rsp transport.Message
			if err := client.Call(context.Background(), &transport.Message{Timeout: time.Minute, Body: make([]byte, size)}, &rsp); err != nil {
				t.Fatalf("%d bytes: %v", size, err)
			}
			e := status.Parse(rsp.Header.Get(transport.HeaderError))
			if refused != (e != nil) || refused && e.Code != status.TooLarge || !refused && len(rsp.Body) != 2*size {
				t.Errorf("%d bytes: an answer of %d, error %v, want refused %t", size, len(rsp.Body), e, refused)
			}
		}
		if err := client.Call(context.Background(), &transport.Message{Body: make([]byte, 5<<20)}, new(transport.Message)); !errors.Is(err, transport.ErrTooLarge) {
			t.Errorf("a call over the client's own limit: %v", err)
		}
		client.Close()
		if err := <-ended; !errors.Is(err, io.EOF) {
			t.Errorf("ServeCalls: %v, want io.EOF", err)
		}
		server.Close()
	}
}

// TestHeaders: a handler gets the framework's own headers and the caller's metadata apart, in whatever order they came.
func TestHeaders(t *testing.T) {
	t.Parallel()
	routes := 0
	route := &transport.Route{Pace: transport.NewPace(transport.PaceAdaptive), Serve: func(ctx context.Context, req, rsp *transport.Message) {
		rsp.Body = append(append(append(rsp.Body, req.Header...), '|'), metadata.Incoming(ctx)...)
	}}
	client, _ := served(t, func(metadata.MD) *transport.Route { routes++; return route })
	own := metadata.Of("micro-endpoint", "E", "content-type", "t")
	for name, test := range map[string]struct{ header, own, rest metadata.MD }{
		"nothing":  {nil, nil, nil},
		"own":      {own, own, nil},
		"callers":  {metadata.Of("a", "b"), nil, metadata.Of("a", "b")},
		"in order": {metadata.Of("micro-endpoint", "E", "content-type", "t", "a", "b", "c", "d"), own, metadata.Of("a", "b", "c", "d")},
		"mixed":    {metadata.Of("a", "b", "micro-endpoint", "E", "c", "d", "content-type", "t"), own, metadata.Of("a", "b", "c", "d")},
	} {
		for range 3 {
			var rsp transport.Message
			if err := client.Call(context.Background(), &transport.Message{Header: test.header}, &rsp); err != nil {
				t.Fatal(err)
			}
			if want := string(test.own) + "|" + string(test.rest); string(rsp.Body) != want {
				t.Errorf("%s: got %q, want %q", name, rsp.Body, want)
			}
		}
	}
	if routes != 2 {
		t.Errorf("%d routes were made, want one for each of the framework's own headers", routes)
	}
}

// TestDeadline: a handler's time is what the route makes of the caller's.
func TestDeadline(t *testing.T) {
	t.Parallel()
	var got time.Duration
	route := &transport.Route{
		Timeout: func(asked time.Duration) time.Duration { return asked / 2 },
		Serve: func(ctx context.Context, _, _ *transport.Message) {
			got = 0
			if at, ok := ctx.Deadline(); ok {
				got = time.Until(at).Round(10 * time.Second)
			}
		},
	}
	client, _ := served(t, func(metadata.MD) *transport.Route { return route })
	for asked, want := range map[time.Duration]time.Duration{0: 0, time.Hour: 30 * time.Minute} {
		if _, err := call(context.Background(), client, "x", asked); err != nil || got != want {
			t.Errorf("asked %s: got %s, %v, want %s", asked, got, err, want)
		}
	}
}
