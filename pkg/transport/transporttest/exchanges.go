package transporttest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// RunExchanges runs the suite of backends whose protocol is another's, and has no messages of ours: gRPC. Their dialled Conns are
// Callers; unary calls come to a transport.CallServer; and what Accept yields is one stream each, which begins with its Open. The ids of
// messages are each side's own. open is called once for each test.
func RunExchanges(t *testing.T, open func(t *testing.T) Harness) {
	tests := []struct {
		name string
		run  func(t *testing.T, h Harness)
	}{
		{"Call", exchangeCall},
		{"CallError", exchangeCallError},
		{"CallMetadataLimits", exchangeMetadataLimits},
		{"CallMessageLimit", exchangeMessageLimit},
		{"CallsAtOnce", exchangeCallsAtOnce},
		{"CallContext", exchangeCallContext},
		{"CallAfterClose", exchangeCallAfterClose},
		{"CallLost", exchangeCallLost},
		{"Stream", exchangeStream},
		{"StreamAfterStream", exchangeStreamAfterStream},
		{"StreamError", exchangeStreamError},
		{"StreamCancel", exchangeStreamCancel},
		{"StreamBlocked", exchangeStreamBlocked},
		{"RecvContext", exchangeRecvContext},
		{"Close", exchangeClose},
		{"DialDead", testDialDead},
		{"DialContext", testDialContext},
		{"ListenTaken", testListenTaken},
		{"ListenerClose", exchangeListenerClose},
		{"ShutdownBusy", exchangeShutdownBusy},
		{"ShutdownContext", exchangeShutdownContext},
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

// kinds are the endpoints of the suite: "Say.Hello" is called, and "Say.Chat" streams.
type kinds struct{}

func (kinds) Service() string { return "greeter" }
func (kinds) Names() []string { return []string{"Say.Chat", "Say.Hello"} }
func (kinds) Lookup(name string) (stream, known bool) {
	return name == "Say.Chat", name == "Say.Chat" || name == "Say.Hello"
}

// calls is the header of a message of the suite.
func calls(endpoint string, pairs ...string) metadata.MD {
	return metadata.Of(append([]string{transport.HeaderService, "greeter", transport.HeaderEndpoint, endpoint}, pairs...)...)
}

// exchanges serves calls by h, and gives a dialled connection, and the streams that come.
func exchanges(t *testing.T, h Harness, handle transport.CallHandler) (conn transport.Conn, l transport.Listener, streams <-chan transport.Conn) {
	t.Helper()
	l = listen(t, h)
	if handle == nil {
		handle = echoCall
	}
	l.(transport.CallServer).ServeCalls(handle)
	l.(transport.EndpointServer).ServeEndpoints(kinds{})
	accepted := make(chan transport.Conn, 16)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return dialExchange(t, h, l), l, accepted
}

func dialExchange(t *testing.T, h Harness, l transport.Listener) transport.Conn {
	t.Helper()
	conn, err := h.Transport.Dial(bounded(t), l.Addr())
	if err != nil {
		t.Fatalf("Dial(%q): %v", l.Addr(), err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func echoCall(_ context.Context, _ string, req, rsp *transport.Message) {
	rsp.Header = append(rsp.Header, metadata.Of("echo", req.Header.Get("say"))...)
	rsp.Body = append(rsp.Body, req.Body...)
}

func exchangeCall(t *testing.T, h Harness) {
	got := make(chan transport.Message, 1)
	conn, _, _ := exchanges(t, h, func(ctx context.Context, remote string, req, rsp *transport.Message) {
		m := *req
		m.Header, m.Body = m.Header.Clone(), bytes.Clone(m.Body)
		got <- m
		if remote == "" {
			t.Error("a call has no remote address")
		}
		echoCall(ctx, remote, req, rsp)
	})
	caller := conn.(transport.Caller)
	for _, body := range [][]byte{[]byte(`{"name":"John"}`), nil} {
		req := &transport.Message{Timeout: 1500 * time.Millisecond, Header: calls("Say.Hello", "say", "hi", transport.HeaderContentType, "application/json"), Body: body}
		var rsp transport.Message
		if err := caller.Call(bounded(t), req, &rsp); err != nil {
			t.Fatalf("Call: %v", err)
		}
		if rsp.Kind != transport.Reply || string(rsp.Body) != string(body) || rsp.Header.Get("echo") != "hi" {
			t.Fatalf("answer: %s %q %q", rsp.Kind, rsp.Header, rsp.Body)
		}
		m := <-got
		for key, want := range map[string]string{transport.HeaderEndpoint: "Say.Hello", transport.HeaderService: "greeter", "say": "hi", transport.HeaderContentType: "application/json"} {
			if m.Header.Get(key) != want {
				t.Errorf("%s came as %q", key, m.Header.Get(key))
			}
		}
		if !h.NoTimeout && (m.Timeout <= 0 || m.Timeout > req.Timeout) {
			t.Errorf("timeout came as %s", m.Timeout)
		}
	}
	if conn.RemoteAddr() == "" || !caller.Usable() {
		t.Error("the connection has no address, or takes no calls")
	}
	var m transport.Message
	if err := caller.Call(bounded(t), &transport.Message{Header: calls("Say.Nothing")}, &m); err != nil || status.Parse(m.Header.Get(transport.HeaderError)) == nil {
		t.Errorf("a call of an endpoint that is not there: %v, %q", err, m.Header)
	}
}

func exchangeCallError(t *testing.T, h Harness) {
	e := &status.Error{ID: "greeter", Code: status.NotFound, Detail: "no \"name\":\nline two, ünïcode, 100%", Refused: true}
	text, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	conn, _, _ := exchanges(t, h, func(_ context.Context, _ string, _, rsp *transport.Message) {
		rsp.Header = metadata.Of(transport.HeaderError, string(text), "beside", "it")
	})
	var rsp transport.Message
	if err := conn.(transport.Caller).Call(bounded(t), &transport.Message{Header: calls("Say.Hello")}, &rsp); err != nil {
		t.Fatalf("Call: %v", err)
	}
	got := status.Parse(rsp.Header.Get(transport.HeaderError))
	if got == nil || got.ID != e.ID || got.Code != e.Code || got.Detail != e.Detail || !got.Refused || rsp.Header.Get("beside") != "it" {
		t.Fatalf("the error came as %+v, %q", got, rsp.Header)
	}
}

func exchangeMetadataLimits(t *testing.T, h Harness) {
	conn, _, _ := exchanges(t, h, func(_ context.Context, _ string, req, rsp *transport.Message) {
		rsp.Body = fmt.Append(rsp.Body, transport.Metadata(req.Header).Len())
		rsp.Header = append(rsp.Header, transport.Metadata(req.Header)...)
	})
	caller := conn.(transport.Caller)
	full := calls("Say.Hello", transport.HeaderContentType, "application/json")
	for i := range metadata.MaxPairs - 3 {
		var err error
		if full, err = full.Set(fmt.Sprintf("k%04d", i), strings.Repeat("v", 200)); err != nil {
			t.Fatalf("pair %d: %v", i, err)
		}
	}
	var rsp transport.Message
	if err := caller.Call(bounded(t), &transport.Message{Header: full}, &rsp); err != nil || string(rsp.Body) != fmt.Sprint(metadata.MaxPairs-3) ||
		rsp.Header.Get("k0060") != strings.Repeat("v", 200) {
		t.Fatalf("%d pairs: %v, %s came", metadata.MaxPairs-3, err, rsp.Body)
	}
	over := append(full[:len(full):len(full)], make(metadata.MD, metadata.MaxSize)...)
	if err := caller.Call(bounded(t), &transport.Message{Header: over}, &rsp); !errors.Is(err, transport.ErrTooLarge) {
		t.Fatalf("Call with %d bytes of metadata: %v, want ErrTooLarge", len(over), err)
	}
	if err := caller.Call(bounded(t), &transport.Message{Header: metadata.MD{200, 'x'}}, &rsp); !errors.Is(err, metadata.ErrInvalid) {
		t.Fatalf("Call with broken metadata: %v, want metadata.ErrInvalid", err)
	}
}

func exchangeMessageLimit(t *testing.T, h Harness) {
	conn, _, _ := exchanges(t, h, nil)
	caller := conn.(transport.Caller)
	var rsp transport.Message
	err := caller.Call(bounded(t), &transport.Message{Header: calls("Say.Hello"), Body: make([]byte, h.MaxMessage+1)}, &rsp)
	if !errors.Is(err, transport.ErrTooLarge) || transport.NotSent(err) {
		t.Fatalf("Call over the limit: %v, want ErrTooLarge and not ErrNotSent, as no other node would take it", err)
	}
	largest := body(h.MaxMessage, 2)
	if err := caller.Call(bounded(t), &transport.Message{Header: calls("Say.Hello"), Body: largest}, &rsp); err != nil || !bytes.Equal(rsp.Body, largest) {
		t.Fatalf("the largest message: %v, %d bytes came back", err, len(rsp.Body))
	}
}

func exchangeCallsAtOnce(t *testing.T, h Harness) {
	conn, _, _ := exchanges(t, h, nil)
	ctx := bounded(t)
	var wg sync.WaitGroup
	for i := range uint32(12) {
		size, count := int(i)*1999, 50
		if i%6 == 0 {
			size, count = h.MaxMessage, 2
		}
		wg.Go(func() {
			for range count {
				want := body(size, i)
				var rsp transport.Message
				if err := conn.(transport.Caller).Call(ctx, &transport.Message{Header: calls("Say.Hello"), Body: want}, &rsp); err != nil || !bytes.Equal(rsp.Body, want) {
					t.Errorf("call of %d bytes: %v, %d came back", size, err, len(rsp.Body))
					return
				}
			}
		})
	}
	wg.Wait()
}

func exchangeCallContext(t *testing.T, h Harness) {
	ended := make(chan struct{}, 1)
	conn, _, _ := exchanges(t, h, func(ctx context.Context, remote string, req, rsp *transport.Message) {
		if string(req.Body) == "wait" {
			<-ctx.Done()
			ended <- struct{}{}
			return
		}
		echoCall(ctx, remote, req, rsp)
	})
	caller := conn.(transport.Caller)
	ctx, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	var rsp transport.Message
	err := caller.Call(ctx, &transport.Message{Header: calls("Say.Hello"), Body: []byte("wait")}, &rsp)
	if !errors.Is(err, context.DeadlineExceeded) || transport.NotSent(err) {
		t.Fatalf("Call that is not answered: %v, want the context's error and not ErrNotSent", err)
	}
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("the handler does not learn that its caller has gone")
	}
	if err := caller.Call(ctx, &transport.Message{Header: calls("Say.Hello")}, &rsp); !transport.NotSent(err) {
		t.Fatalf("Call with an ended context: %v, want ErrNotSent", err)
	}
	if err := caller.Call(bounded(t), &transport.Message{Header: calls("Say.Hello"), Body: []byte("next")}, &rsp); err != nil || string(rsp.Body) != "next" {
		t.Fatalf("the call after one that was given up: %v", err)
	}
}

func exchangeCallAfterClose(t *testing.T, h Harness) {
	conn, _, _ := exchanges(t, h, nil)
	caller := conn.(transport.Caller)
	if !caller.CloseIdle() || caller.Usable() {
		t.Fatal("CloseIdle of an idle connection leaves it open")
	}
	var rsp transport.Message
	if err := caller.Call(bounded(t), &transport.Message{Header: calls("Say.Hello")}, &rsp); !transport.NotSent(err) {
		t.Fatalf("Call after CloseIdle: %v, want ErrNotSent", err)
	}
}

func exchangeCallLost(t *testing.T, h Harness) {
	var conn transport.Conn
	var l transport.Listener
	closed := make(chan struct{})
	conn, l, _ = exchanges(t, h, func(ctx context.Context, _ string, _, _ *transport.Message) {
		go func() {
			l.Close()
			close(closed)
		}()
		<-ctx.Done()
	})
	caller := conn.(transport.Caller)
	var rsp transport.Message
	if err := caller.Call(bounded(t), &transport.Message{Header: calls("Say.Hello")}, &rsp); err == nil || transport.NotSent(err) {
		t.Fatalf("Call whose connection was lost: %v, want an error that is not ErrNotSent", err)
	}
	<-closed
	for caller.Usable() {
		time.Sleep(time.Millisecond)
	}
	if err := caller.Call(bounded(t), &transport.Message{Header: calls("Say.Hello")}, &rsp); !transport.NotSent(err) {
		t.Fatalf("Call on a lost connection: %v, want ErrNotSent", err)
	}
}

// opened opens a stream, and gives the server's end of it.
func opened(t *testing.T, conn transport.Conn, id uint32, streams <-chan transport.Conn, pairs ...string) transport.Conn {
	t.Helper()
	send(t, conn, &transport.Message{Kind: transport.Open, ID: id, Header: calls("Say.Chat", pairs...)})
	var server transport.Conn
	select {
	case server = <-streams:
	case <-time.After(patience):
		t.Fatal("the stream does not reach Accept")
	}
	t.Cleanup(func() { server.Close() })
	open := recv(t, server)
	if open.Kind != transport.Open || open.Header.Get(transport.HeaderEndpoint) != "Say.Chat" {
		t.Fatalf("a stream begins with a %s, header %q", open.Kind, open.Header)
	}
	send(t, server, &transport.Message{Kind: transport.Opened, ID: open.ID})
	wantKind(t, recv(t, conn), transport.Opened, id)
	return server
}

func exchangeStream(t *testing.T, h Harness) {
	conn, _, streams := exchanges(t, h, nil)
	server := opened(t, conn, 3, streams)
	const count = 50
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range uint32(count) {
			m := &transport.Message{Kind: transport.Data, ID: 3, Body: body(int(i)*3000, i)}
			if err := conn.Send(bounded(t), m); err != nil {
				t.Errorf("Send: %v", err)
			}
			clear(m.Body) // Send retains nothing
		}
		if err := conn.Send(bounded(t), &transport.Message{Kind: transport.End, ID: 3}); err != nil {
			t.Errorf("Send: %v", err)
		}
	})
	for i := range uint32(count) {
		if m := recv(t, server); m.Kind != transport.Data || !bytes.Equal(m.Body, body(int(i)*3000, i)) {
			t.Fatalf("message %d of the stream came out of order or damaged: %s", i, m.Kind)
		}
	}
	if m := recv(t, server); m.Kind != transport.End {
		t.Fatalf("the client's end came as %s", m.Kind)
	}
	wg.Wait()
	// The client's direction is closed, the server's is not.
	for i := range 3 {
		send(t, server, &transport.Message{Kind: transport.Data, ID: 1, Body: fmt.Append(nil, i)})
	}
	send(t, server, &transport.Message{Kind: transport.End, ID: 1, Header: metadata.Of("sum", "3")})
	for i := range 3 {
		if m := recv(t, conn); m.Kind != transport.Data || string(m.Body) != fmt.Sprint(i) {
			t.Fatalf("message %d of the server came as %s %q", i, m.Kind, m.Body)
		}
	}
	end := recv(t, conn)
	wantKind(t, end, transport.End, 3)
	if end.Header.Get("sum") != "3" {
		t.Fatalf("header of the End came as %q", end.Header)
	}
}

func exchangeStreamAfterStream(t *testing.T, h Harness) {
	conn, _, streams := exchanges(t, h, nil)
	for id := range uint32(3) {
		server := opened(t, conn, id+1, streams)
		send(t, server, &transport.Message{Kind: transport.End, ID: 1})
		wantKind(t, recv(t, conn), transport.End, id+1)
		// This crosses the server's End on its way: it must do no harm.
		send(t, conn, &transport.Message{Kind: transport.Data, ID: id + 1})
		send(t, conn, &transport.Message{Kind: transport.End, ID: id + 1})
	}
}

func exchangeStreamError(t *testing.T, h Harness) {
	conn, _, streams := exchanges(t, h, nil)
	server := opened(t, conn, 1, streams)
	e := &status.Error{ID: "greeter", Code: status.AlreadyExists, Detail: "taken"}
	text, _ := e.MarshalJSON() // always encodes
	send(t, server, &transport.Message{Kind: transport.Data, ID: 1, Body: []byte("first")})
	send(t, server, &transport.Message{Kind: transport.End, ID: 1, Header: metadata.Of(transport.HeaderError, string(text))})
	wantKind(t, recv(t, conn), transport.Data, 1)
	end := recv(t, conn)
	wantKind(t, end, transport.End, 1)
	if got := status.Parse(end.Header.Get(transport.HeaderError)); got == nil || got.ID != e.ID || got.Code != e.Code || got.Detail != e.Detail {
		t.Fatalf("the error came as %+v", got)
	}
}

func exchangeStreamCancel(t *testing.T, h Harness) {
	conn, _, streams := exchanges(t, h, nil)
	server := opened(t, conn, 1, streams)
	send(t, conn, &transport.Message{Kind: transport.Cancel, ID: 1})
	for {
		var m transport.Message
		if err := server.Recv(bounded(t), &m); errors.Is(err, io.EOF) {
			return
		} else if err != nil || m.Kind == transport.Data {
			t.Fatalf("of a stream that was cancelled came a %s, %v", m.Kind, err)
		}
	}
}

// exchangeStreamBlocked: who sends to a peer that does not read waits, and no longer than its context.
func exchangeStreamBlocked(t *testing.T, h Harness) {
	conn, l, streams := exchanges(t, h, nil)
	for name, of := range map[string]func(client, server transport.Conn) transport.Conn{
		"client": func(client, _ transport.Conn) transport.Conn { return client },
		"server": func(_, server transport.Conn) transport.Conn { return server },
	} {
		end := of(conn, opened(t, conn, 1, streams))
		data := body(60_000, 1)
		ctx, stop := context.WithTimeout(t.Context(), 500*time.Millisecond)
		var err error
		for i := 0; err == nil && i < 10_000; i++ {
			err = end.Send(ctx, &transport.Message{Kind: transport.Data, ID: 1, Body: data})
		}
		stop()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%s: Send whose context ended: %v, want its error", name, err)
		}
		conn = dialExchange(t, h, l)
	}
}

func exchangeRecvContext(t *testing.T, h Harness) {
	conn, _, streams := exchanges(t, h, nil)
	server := opened(t, conn, 1, streams)
	for _, end := range []transport.Conn{conn, server} {
		for range 3 {
			ctx, stop := context.WithTimeout(t.Context(), 10*time.Millisecond)
			var m transport.Message
			if err := end.Recv(ctx, &m); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("Recv whose context ended: %v, want its error", err)
			}
			stop()
		}
	}
	send(t, conn, &transport.Message{Kind: transport.Data, ID: 1, Body: []byte("still there?")})
	if m := recv(t, server); string(m.Body) != "still there?" {
		t.Fatalf("got %q", m.Body)
	}
}

func exchangeClose(t *testing.T, h Harness) {
	conn, _, streams := exchanges(t, h, nil)
	server := opened(t, conn, 1, streams)
	got := make(chan error, 1)
	go func() {
		var m transport.Message
		got <- conn.Recv(context.Background(), &m)
	}()
	for range 2 {
		if err := conn.Close(); err != nil {
			t.Fatalf("Close: %v", err)
		}
	}
	if err := <-got; !errors.Is(err, transport.ErrClosed) {
		t.Fatalf("Recv that was pending at Close: %v, want ErrClosed", err)
	}
	var m transport.Message
	if err := conn.Recv(bounded(t), &m); !errors.Is(err, transport.ErrClosed) {
		t.Fatalf("Recv after Close: %v, want ErrClosed", err)
	}
	if err := conn.Send(bounded(t), &transport.Message{Kind: transport.Open, ID: 2, Header: calls("Say.Chat")}); !errors.Is(err, transport.ErrClosed) {
		t.Fatalf("Send after Close: %v, want ErrClosed", err)
	}
	if err := server.Recv(bounded(t), &m); !errors.Is(err, io.EOF) {
		t.Fatalf("Recv from a peer that has closed the connection: %v, want io.EOF", err)
	}
}

func exchangeListenerClose(t *testing.T, h Harness) {
	l := listen(t, h)
	got := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		got <- err
	}()
	if err := l.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	if err := <-got; !errors.Is(err, transport.ErrClosed) {
		t.Fatalf("Accept that was pending at Close: %v, want ErrClosed", err)
	}
	if _, err := l.Accept(); !errors.Is(err, transport.ErrClosed) {
		t.Fatalf("Accept after Close: %v, want ErrClosed", err)
	}
	l.Close()
	again, err := h.Transport.Listen(bounded(t), l.Addr())
	if err != nil {
		t.Fatalf("the address is not free after Close: %v", err)
	}
	again.Close()
}

func exchangeShutdownBusy(t *testing.T, h Harness) {
	hold, begun := make(chan struct{}), make(chan struct{})
	conn, l, streams := exchanges(t, h, func(ctx context.Context, remote string, req, rsp *transport.Message) {
		close(begun)
		<-hold
		echoCall(ctx, remote, req, rsp)
	})
	server := opened(t, conn, 1, streams)
	other := dialExchange(t, h, l).(transport.Caller)
	got := make(chan error, 1)
	go func() {
		var rsp transport.Message
		err := other.Call(context.Background(), &transport.Message{Header: calls("Say.Hello"), Body: []byte("under way")}, &rsp)
		if err == nil && string(rsp.Body) != "under way" {
			err = fmt.Errorf("answer %q, header %q", rsp.Body, rsp.Header)
		}
		got <- err
	}()
	<-begun
	done := shutdown(t, bounded(t), l)
	for other.Usable() {
		time.Sleep(time.Millisecond)
	}
	var rsp transport.Message
	if err := other.Call(bounded(t), &transport.Message{Header: calls("Say.Hello")}, &rsp); !transport.NotSent(err) {
		t.Errorf("Call after GOAWAY: %v, want ErrNotSent", err)
	}
	select {
	case err := <-done:
		t.Fatalf("Shutdown returned before the call was answered: %v", err)
	default:
	}
	close(hold)
	if err := <-got; err != nil {
		t.Fatalf("the call under way: %v", err)
	}
	send(t, server, &transport.Message{Kind: transport.Data, ID: 1, Body: []byte("last words")})
	send(t, server, &transport.Message{Kind: transport.End, ID: 1})
	if m := recv(t, conn); string(m.Body) != "last words" {
		t.Fatalf("the stream under way: %s %q", m.Kind, m.Body)
	}
	wantKind(t, recv(t, conn), transport.End, 1)
	if err := <-done; err != nil {
		t.Fatalf("Shutdown: %v", err)
	}
	if c, err := h.Transport.Dial(bounded(t), l.Addr()); err == nil {
		c.Close()
		t.Fatal("Dial succeeded after Shutdown")
	}
}

func exchangeShutdownContext(t *testing.T, h Harness) {
	conn, l, streams := exchanges(t, h, nil)
	opened(t, conn, 1, streams)
	ctx, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if err := <-shutdown(t, ctx, l); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Shutdown with a stream that never ends: %v, want the context's error", err)
	}
}
