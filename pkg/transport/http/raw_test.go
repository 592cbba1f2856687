package http_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	nethttp "net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/http"
)

// The flags of frames, as docs/protocol.md has them.
const (
	more = 1
	cont = 2
)

// server is a listener that echoes plain calls and calls in frames.
type server struct {
	*http.Listener
	tr     *http.Transport
	failed chan error // how each upgraded connection ended
}

// serve starts a server. A nil handler is echoPlain.
func serve(t *testing.T, o http.Options, calls transport.CallHandler) *server {
	t.Helper()
	if calls == nil {
		calls = echoPlain
	}
	s := listening(t, o, calls)
	s.start(t)
	return s
}

// listening gives a server that is still to be started.
func listening(t *testing.T, o http.Options, calls transport.CallHandler) *server {
	t.Helper()
	tr := newTransport(t, o)
	l, err := tr.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{Listener: l.(*http.Listener), tr: tr, failed: make(chan error, 100)}
	s.ServeCalls(calls)
	return s
}

func (s *server) start(t *testing.T) {
	var wg sync.WaitGroup
	ctx, stop := context.WithCancel(context.Background())
	wg.Go(func() {
		for {
			c, err := s.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { s.failed <- echoFrames(ctx, c) })
		}
	})
	t.Cleanup(func() {
		s.Close()
		stop()
		wg.Wait()
	})
}

// echoFrames answers calls until the connection ends.
func echoFrames(ctx context.Context, c transport.Conn) error {
	defer c.Close()
	for {
		var m transport.Message
		if err := c.Recv(ctx, &m); err != nil {
			return err
		}
		if m.Kind == transport.Call {
			m.Kind = transport.Reply
			if err := c.Send(ctx, &m); err != nil {
				return err
			}
		}
	}
}

// echoPlain answers with the request's metadata and body. "fail" as the body fails.
func echoPlain(_ context.Context, _ string, req, rsp *transport.Message) {
	if string(req.Body) == "fail" {
		rsp.Header = metadata.Of(transport.HeaderError, `{"id":"echo","code":409,"detail":"as\nyou wish","status":"Conflict"}`, "x-extra", "kept")
		return
	}
	rsp.Header = metadata.Of(transport.HeaderContentType, req.Header.Get(transport.HeaderContentType))
	for k, v := range req.Header.All() {
		rsp.Header, _ = rsp.Header.Set("got-"+k, v)
	}
	rsp.Header, _ = rsp.Header.Set("got-timeout", req.Timeout.String())
	rsp.Body = append(rsp.Body, req.Body...)
}

// raw opens a TCP connection to a server.
func raw(t *testing.T, s *server) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	if err := nc.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return nc
}

func write(t *testing.T, nc net.Conn, data []byte) {
	t.Helper()
	if _, err := nc.Write(data); err != nil {
		t.Fatal(err)
	}
}

// upgraded opens a connection of frames by hand.
func upgraded(t *testing.T, s *server) net.Conn {
	t.Helper()
	nc := raw(t, s)
	fmt.Fprintf(nc, "OPTIONS / HTTP/1.1\r\nHost: %s\r\nConnection: upgrade\r\nUpgrade: MICRO\r\nMicro-Version: 1\r\n\r\n", s.Addr())
	rsp, err := nethttp.ReadResponse(bufio.NewReader(nc), nil)
	if err != nil || rsp.StatusCode != 101 {
		t.Fatalf("upgrade: %v %v", rsp, err)
	}
	return nc
}

// frameOf builds a frame by hand: body length, id, section length, kind, flags, timeout.
func frameOf(kind transport.Kind, flags byte, id uint32, section, body []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
	b = binary.BigEndian.AppendUint32(b, id)
	b = binary.BigEndian.AppendUint16(b, uint16(len(section)))
	b = append(b, byte(kind), flags, 0, 0, 0, 0)
	return append(append(b, section...), body...)
}

// readFrame reads a frame by hand.
func readFrame(t *testing.T, nc net.Conn) (kind transport.Kind, id uint32, section metadata.MD, body []byte) {
	t.Helper()
	head := make([]byte, 16)
	if _, err := io.ReadFull(nc, head); err != nil {
		t.Fatalf("reading a frame's header: %v", err)
	}
	section = make([]byte, binary.BigEndian.Uint16(head[8:]))
	body = make([]byte, binary.BigEndian.Uint32(head))
	for _, part := range [][]byte{section, body} {
		if _, err := io.ReadFull(nc, part); err != nil {
			t.Fatalf("reading a frame: %v", err)
		}
	}
	return transport.Kind(head[10]), binary.BigEndian.Uint32(head[4:]), section, body
}

// TestBadFrames: a peer that breaks the protocol loses its connection, with a clear error; others notice nothing.
func TestBadFrames(t *testing.T) {
	t.Parallel()
	s := serve(t, http.Options{BodyIdle: 300 * time.Millisecond, MaxMessage: 200_000}, nil)
	good, err := s.tr.Dial(t.Context(), s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	calls := transport.NewCaller(good)
	defer calls.Close()
	huge := frameOf(transport.Call, 0, 1, nil, nil)
	binary.BigEndian.PutUint32(huge, math.MaxUint32)
	var many []byte
	for id := range uint32(9) {
		many = append(many, frameOf(transport.Call, more, id, nil, []byte("x"))...)
	}
	tests := []struct {
		name  string
		data  []byte
		close bool // the peer closes after data
		want  error
		text  string
	}{
		{"frame of 4 GiB", huge, false, transport.ErrProtocol, "4294967295 bytes"},
		{"half a header, then closed", huge[:7], true, io.ErrUnexpectedEOF, ""},
		{"half a header, then silence", frameOf(transport.Call, 0, 1, nil, nil)[:7], false, transport.ErrProtocol, "in time"},
		{"closed within a body", frameOf(transport.Call, 0, 1, nil, make([]byte, 1000))[:500], true, io.ErrUnexpectedEOF, ""},
		{"closed between the frames of a message", frameOf(transport.Call, more, 1, nil, make([]byte, 1000)), true, io.ErrUnexpectedEOF, ""},
		{"silence between the frames of a message", frameOf(transport.Call, more, 1, nil, make([]byte, 1000)), false, transport.ErrProtocol, "in time"},
		{"unknown kind", frameOf(77, 0, 1, nil, nil), false, transport.ErrProtocol, "unknown kind 77"},
		{"unknown flag", frameOf(transport.Call, 0x80, 1, nil, nil), false, transport.ErrProtocol, "flags"},
		{"continues nothing", frameOf(transport.Call, cont, 1, nil, []byte("x")), false, transport.ErrProtocol, "continues"},
		{"too many messages in parts", many, false, transport.ErrProtocol, "in parts"},
		{"metadata over the limit", frameOf(transport.Call, 0, 1, make([]byte, 16<<10+1), nil), false, transport.ErrProtocol, "metadata"},
		{"broken metadata", frameOf(transport.Call, 0, 1, []byte{5, 'x'}, nil), false, transport.ErrProtocol, "metadata"},
		{"data of no stream", frameOf(transport.Data, 0, 9, nil, nil), false, transport.ErrProtocol, "id 9"},
		{"a reply from a client", frameOf(transport.Reply, 0, 1, nil, nil), false, transport.ErrProtocol, "reply"},
		{"second stream", append(frameOf(transport.Open, 0, 1, nil, nil), frameOf(transport.Open, 0, 2, nil, nil)...), false, transport.ErrProtocol, "id 2"},
		{"closed between messages", nil, true, io.EOF, ""},
		{"HTTP in place of frames", []byte("POST /Say.Hello HTTP/1.1\r\nHost: localhost\r\n\r\n"), false, transport.ErrProtocol, ""},
	}
	for _, test := range tests { // one after the other, so that each end is the test's own
		nc := upgraded(t, s)
		write(t, nc, test.data)
		if test.close {
			nc.Close()
		}
		err := <-s.failed
		if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) {
			t.Errorf("%s: the server's Recv: %v, want %v with %q", test.name, err, test.want, test.text)
		}
		if !test.close {
			if _, err := nc.Read(make([]byte, 1)); err == nil {
				t.Errorf("%s: the server answered", test.name)
			} else if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
				t.Errorf("%s: the connection was not closed", test.name)
			}
		}
		var rsp transport.Message
		if err := calls.Call(t.Context(), &transport.Message{Body: []byte("fine")}, &rsp); err != nil || string(rsp.Body) != "fine" {
			t.Fatalf("%s: another connection suffers: %v %q", test.name, err, rsp.Body)
		}
	}
}

// TestSlowMessage: bytes that drip in do not keep a message open for ever.
func TestSlowMessage(t *testing.T) {
	t.Parallel()
	s := serve(t, http.Options{BodyIdle: 2 * time.Second, BodyTimeout: 300 * time.Millisecond}, nil)
	nc := upgraded(t, s)
	go func() {
		for _, b := range frameOf(transport.Call, 0, 1, nil, make([]byte, 10_000)) {
			if _, err := nc.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	if err := <-s.failed; !errors.Is(err, transport.ErrProtocol) {
		t.Fatalf("the server's Recv: %v, want ErrProtocol", err)
	}
	nc.Close()
}

// TestOversizeCall: a call over the limit is refused, and its connection lives on.
func TestOversizeCall(t *testing.T) {
	t.Parallel()
	s := serve(t, http.Options{MaxMessage: 100_000}, nil)
	nc := upgraded(t, s)
	go func() {
		_, _ = nc.Write(frameOf(transport.Call, more, 1, nil, make([]byte, 60_000)))
		_, _ = nc.Write(frameOf(transport.Call, 0, 2, nil, []byte("between")))
		_, _ = nc.Write(frameOf(transport.Call, more|cont, 1, nil, make([]byte, 60_000)))
		_, _ = nc.Write(frameOf(transport.Call, cont, 1, nil, make([]byte, 60_000)))
		_, _ = nc.Write(frameOf(transport.Call, 0, 3, nil, []byte("after")))
	}()
	for i, want := range []string{"between", "", "after"} {
		kind, id, section, body := readFrame(t, nc)
		if kind != transport.Reply || string(body) != want {
			t.Fatalf("answer %d: %s to %d: %q, want %q", i, kind, id, body, want)
		}
		e := status.Parse(section.Get(transport.HeaderError))
		if (want == "") != (e != nil && e.Code == status.TooLarge && id == 1) {
			t.Fatalf("answer %d: error %v", i, e)
		}
	}
}

// TestOversizeReply: a client whose limit is lower than the server's loses that call alone.
func TestOversizeReply(t *testing.T) {
	t.Parallel()
	s := serve(t, http.Options{}, nil)
	// The same port, with a lower limit on this side; the server echoes what the limit allows to be sent.
	c, err := newTransport(t, http.Options{MaxMessage: 10}).Dial(t.Context(), s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	calls := transport.NewCaller(c)
	defer calls.Close()
	var rsp transport.Message
	if err := calls.Call(t.Context(), &transport.Message{Body: make([]byte, 11)}, &rsp); !errors.Is(err, transport.ErrTooLarge) {
		t.Fatalf("a request over the limit: %v, want ErrTooLarge", err)
	}
	if err := calls.Call(t.Context(), &transport.Message{Body: make([]byte, 10)}, &rsp); err != nil || len(rsp.Body) != 10 {
		t.Fatalf("a call at the limit: %v", err)
	}
}

// badServer accepts a connection, agrees to the upgrade, and then does what the test says.
func badServer(t *testing.T, do func(nc net.Conn)) string {
	t.Helper()
	return rawServer(t, func(nc net.Conn) {
		if _, err := nethttp.ReadRequest(bufio.NewReader(nc)); err != nil {
			return
		}
		_, _ = io.WriteString(nc, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: micro\r\nMicro-Version: 1\r\n\r\n")
		do(nc)
	})
}

func rawServer(t *testing.T, do func(nc net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer nc.Close()
				_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
				do(nc)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		wg.Wait()
	})
	return ln.Addr().String()
}

// TestBadServer: whatever a server sends, the call fails with a clear error, and at once.
func TestBadServer(t *testing.T) {
	t.Parallel()
	reply := func(id uint32, body string) []byte { return frameOf(transport.Reply, 0, id, nil, []byte(body)) }
	for _, test := range []struct {
		name string
		data []byte
		want error
	}{
		{"a wrong id", reply(1000, "x"), transport.ErrProtocol},
		{"id 0", reply(0, "x"), transport.ErrProtocol},
		{"an unknown kind", frameOf(0, 0, 1, nil, nil), transport.ErrProtocol},
		{"a call", frameOf(transport.Call, 0, 1, nil, nil), transport.ErrProtocol},
		{"a stream's message", frameOf(transport.Data, 0, 1, nil, nil), transport.ErrProtocol},
		{"half a reply", reply(1, "xxxx")[:18], io.ErrUnexpectedEOF},
		{"nothing", nil, io.EOF},
		{"text", []byte("HTTP/1.1 500 Internal Server Error\r\n\r\n"), transport.ErrProtocol},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			addr := badServer(t, func(nc net.Conn) {
				if _, err := io.ReadFull(nc, make([]byte, 16)); err == nil {
					_, _ = nc.Write(test.data)
				}
			})
			c, err := newTransport(t, http.Options{}).Dial(t.Context(), addr)
			if err != nil {
				t.Fatal(err)
			}
			calls := transport.NewCaller(c)
			defer calls.Close()
			var rsp transport.Message
			err = calls.Call(t.Context(), &transport.Message{}, &rsp)
			if !errors.Is(err, test.want) || transport.NotSent(err) {
				t.Fatalf("Call: %v, want %v and not ErrNotSent", err, test.want)
			}
		})
	}
}

// TestDialStranger: a port that went to another program costs an error, and no call is sent to it.
func TestDialStranger(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		answer string
		want   error
	}{
		{"SSH", "SSH-2.0-OpenSSH_9.6\r\n", transport.ErrProtocol},
		{"silence", "", nil},
		{"another upgrade", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", transport.ErrProtocol},
		{"frames of another version", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: micro\r\nMicro-Version: 9\r\n\r\n", transport.ErrProtocol},
		{"a head without end", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", 10_000), nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			heard := make(chan string, 1)
			addr := rawServer(t, func(nc net.Conn) {
				_, _ = io.WriteString(nc, test.answer)
				got, _ := io.ReadAll(nc)
				heard <- string(got)
			})
			tr := newTransport(t, http.Options{HeaderTimeout: 200 * time.Millisecond})
			c, err := tr.Dial(t.Context(), addr)
			if err == nil {
				c.Close()
				t.Fatal("Dial succeeded")
			}
			if !transport.NotSent(err) || test.want != nil && !errors.Is(err, test.want) {
				t.Fatalf("Dial: %v, want ErrNotSent and %v", err, test.want)
			}
			if got := <-heard; strings.Contains(got, "POST") || !strings.HasPrefix(got, "OPTIONS / HTTP/1.1\r\n") {
				t.Fatalf("the stranger was sent %q", got)
			}
		})
	}
}

// TestLargeReplyLetsOthersPass: a small reply that is sent after a large one arrives before the large one's end.
func TestLargeReplyLetsOthersPass(t *testing.T) {
	t.Parallel()
	const large = 32 << 20 // more than the buffers of the system hold
	tr := newTransport(t, http.Options{MaxMessage: large})
	l, err := tr.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		for {
			var m transport.Message
			if c.Recv(context.Background(), &m) != nil {
				return
			}
			reply := &transport.Message{Kind: transport.Reply, ID: m.ID}
			if m.ID == 1 {
				reply.Body = make([]byte, large)
			}
			wg.Go(func() { _ = c.Send(context.Background(), reply) }) // the test sees what does not come
		}
	})
	s := &server{Listener: l.(*http.Listener), tr: tr}
	nc := upgraded(t, s)
	t.Cleanup(func() {
		nc.Close()
		l.Close()
		wg.Wait()
	})
	write(t, nc, frameOf(transport.Call, 0, 1, nil, nil))
	readFrame(t, nc)
	write(t, nc, frameOf(transport.Call, 0, 2, nil, nil))
	for got := 1 << 16; ; {
		_, id, _, body := readFrame(t, nc)
		if id == 2 {
			return
		}
		if got += len(body); got == large {
			t.Fatal("the small reply waited for the end of the large one")
		}
	}
}

func TestFramesBefore101(t *testing.T) {
	t.Parallel()
	s := serve(t, http.Options{}, nil)
	nc := raw(t, s)
	write(t, nc, append([]byte("OPTIONS / HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: micro\r\nMicro-Version: 1\r\n\r\n"),
		frameOf(transport.Call, 0, 1, nil, []byte("early"))...))
	if got, _ := io.ReadAll(nc); len(got) != 0 {
		t.Fatalf("a client that does not wait for the 101 was answered %q", got)
	}
}

func TestMaxConns(t *testing.T) {
	t.Parallel()
	s := serve(t, http.Options{MaxConns: 2}, nil)
	var conns []net.Conn
	for range 2 {
		conns = append(conns, upgraded(t, s))
	}
	c, err := s.tr.Dial(t.Context(), s.Addr())
	if err == nil {
		c.Close()
		t.Fatal("a connection beyond the limit was served")
	}
	if !transport.NotSent(err) {
		t.Fatalf("Dial beyond the limit: %v, want ErrNotSent", err)
	}
	conns[0].Close()
	<-s.failed
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		c, err := s.tr.Dial(t.Context(), s.Addr())
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("a place that became free is not used: %v", err)
		}
	}
}

// TestLongLivedConnection: a connection of frames serves on when the time is over that the answer to its upgrade had.
func TestLongLivedConnection(t *testing.T) {
	t.Parallel()
	const limit = 150 * time.Millisecond
	s := serve(t, http.Options{WriteTimeout: limit}, nil)
	c, err := newTransport(t, http.Options{}).Dial(t.Context(), s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for begin := time.Now(); time.Since(begin) < 3*limit; {
		var rsp transport.Message
		req := &transport.Message{Timeout: 10 * time.Second, Body: []byte("hi"),
			Header: metadata.Of(transport.HeaderEndpoint, "Say.Hello", transport.HeaderContentType, jsonType)}
		if err := c.(transport.Caller).Call(t.Context(), req, &rsp); err != nil {
			t.Fatalf("a call after %s: %v", time.Since(begin), err)
		}
	}
}
