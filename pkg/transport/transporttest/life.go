package transporttest

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// blocked sends to a peer that does not read until a Send does not return before its context ends.
func blocked(t *testing.T, c transport.Conn, size int) error {
	t.Helper()
	data := body(size, 1)
	for id := uint32(1); id < 10_000; id++ {
		ctx, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
		err := c.Send(ctx, &transport.Message{Kind: transport.Call, ID: id, Body: data})
		stop()
		if err != nil {
			return err
		}
	}
	t.Fatal("Send never blocks, though the peer does not read")
	return nil
}

func testSendContext(t *testing.T, h Harness) {
	client, _, _ := connect(t, h)
	start := time.Now()
	if err := blocked(t, client, 60_000); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Send whose context ended: %v, want its error", err)
	}
	if took := time.Since(start); took > patience {
		t.Fatalf("Send took %s after its context had ended", took)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := client.Send(ctx, &transport.Message{Kind: transport.Call, ID: 1}); !transport.NotSent(err) {
		t.Fatalf("Send with an ended context: %v, want ErrNotSent", err)
	}
}

// testSendContextInLargeMessage: a Send that gives up within a message leaves either a connection that works or one that
// is closed, and never half a message.
func testSendContextInLargeMessage(t *testing.T, h Harness) {
	client, server, _ := connect(t, h)
	err := blocked(t, client, h.MaxMessage)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Send whose context ended: %v, want its error", err)
	}
	if transport.NotSent(err) {
		go func() {
			_ = client.Send(context.Background(), &transport.Message{Kind: transport.Ping, ID: 77})
			_ = client.Send(context.Background(), &transport.Message{Kind: transport.Cancel, ID: 78})
			_ = client.Send(context.Background(), &transport.Message{Kind: transport.Open, ID: 20_000})
		}()
	}
	for {
		var m transport.Message
		if err := server.Recv(bounded(t), &m); err != nil {
			if transport.NotSent(err) {
				t.Fatalf("Recv: %v", err)
			}
			return
		}
		if m.Kind == transport.Open {
			return
		}
		if !bytes.Equal(m.Body, body(h.MaxMessage, 1)) {
			t.Fatalf("a message came in part: %s %d of %d bytes", m.Kind, m.ID, len(m.Body))
		}
	}
}

func testRecvContext(t *testing.T, h Harness) {
	client, server, _ := connect(t, h)
	for range 3 {
		ctx, stop := context.WithTimeout(t.Context(), 10*time.Millisecond)
		var m transport.Message
		if err := server.Recv(ctx, &m); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Recv whose context ended: %v, want its error", err)
		}
		stop()
	}
	wantUsable(t, client, server, 1)
}

func testClose(t *testing.T, h Harness) {
	client, server, _ := connect(t, h)
	got := make(chan error, 1)
	go func() {
		var m transport.Message
		got <- client.Recv(context.Background(), &m)
	}()
	if err := client.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	if err := <-got; !errors.Is(err, transport.ErrClosed) {
		t.Fatalf("Recv that was pending at Close: %v, want ErrClosed", err)
	}
	if err := client.Close(); err != nil {
		t.Fatalf("second Close: %v", err)
	}
	var m transport.Message
	if err := client.Recv(bounded(t), &m); !errors.Is(err, transport.ErrClosed) {
		t.Fatalf("Recv after Close: %v, want ErrClosed", err)
	}
	if err := client.Send(bounded(t), &transport.Message{Kind: transport.Call, ID: 1}); !errors.Is(err, transport.ErrClosed) {
		t.Fatalf("Send after Close: %v, want ErrClosed", err)
	}
	wantEOF(t, server)
}

func testCloseByPeer(t *testing.T, h Harness) {
	client, server, _ := connect(t, h)
	send(t, client, &transport.Message{Kind: transport.Call, ID: 1})
	wantKind(t, recv(t, server), transport.Call, 1)
	send(t, server, &transport.Message{Kind: transport.Reply, ID: 1, Body: []byte("last words")})
	server.Close()
	if m := recv(t, client); string(m.Body) != "last words" {
		t.Fatalf("what was sent before Close came as %q", m.Body)
	}
	wantEOF(t, client)
	wantEOF(t, client)
}

func testDialDead(t *testing.T, h Harness) {
	l := listen(t, h)
	addr := l.Addr()
	l.Close()
	if c, err := h.Transport.Dial(bounded(t), addr); err == nil {
		c.Close()
		t.Fatal("Dial of an address where nobody listens succeeded")
	} else if !transport.NotSent(err) {
		t.Fatalf("Dial of a dead address: %v, want ErrNotSent", err)
	}
}

func testDialContext(t *testing.T, h Harness) {
	l := listen(t, h)
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if c, err := h.Transport.Dial(ctx, l.Addr()); err == nil {
		c.Close()
		t.Fatal("Dial with an ended context succeeded")
	} else if !transport.NotSent(err) || !errors.Is(err, context.Canceled) {
		t.Fatalf("Dial with an ended context: %v, want ErrNotSent and the context's error", err)
	}
}

func testListenTaken(t *testing.T, h Harness) {
	l := listen(t, h)
	if second, err := h.Transport.Listen(bounded(t), l.Addr()); err == nil {
		second.Close()
		t.Fatalf("Listen on %s succeeded twice", l.Addr())
	}
}

func testListenerClose(t *testing.T, h Harness) {
	client, server, l := connect(t, h)
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
	wantUsable(t, client, server, 1) // what was accepted lives on
	again, err := h.Transport.Listen(bounded(t), l.Addr())
	if err != nil {
		t.Fatalf("the address is not free after Close: %v", err)
	}
	again.Close()
}

// shutdown starts a Shutdown and gives its result's channel. It skips where the backend cannot drain.
func shutdown(t *testing.T, ctx context.Context, l transport.Listener) <-chan error {
	t.Helper()
	s, ok := l.(transport.Shutdowner)
	if !ok {
		t.Skip("the listener has no Shutdown")
	}
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(ctx) }()
	return done
}

func testShutdownIdle(t *testing.T, h Harness) {
	client, server, l := connect(t, h)
	echo(t, server, nil)
	done := shutdown(t, bounded(t), l)
	wantKind(t, recv(t, client), transport.GoAway, 0)
	wantEOF(t, client)
	if err := <-done; err != nil {
		t.Fatalf("Shutdown: %v", err)
	}
	if c, err := h.Transport.Dial(bounded(t), l.Addr()); err == nil {
		c.Close()
		t.Fatal("Dial succeeded after Shutdown")
	}
}

func testShutdownBusy(t *testing.T, h Harness) {
	client, server, l := connect(t, h)
	hold := make(chan struct{})
	echo(t, server, hold)
	send(t, client, &transport.Message{Kind: transport.Call, ID: 1, Body: []byte("under way")})
	send(t, client, &transport.Message{Kind: transport.Ping, ID: 9})
	wantKind(t, recv(t, client), transport.Pong, 9) // the call is there
	done := shutdown(t, bounded(t), l)
	wantKind(t, recv(t, client), transport.GoAway, 0)
	// A call and a stream that crossed the GoAway are refused, so that they can go elsewhere.
	for id, kinds := range map[uint32][2]transport.Kind{2: {transport.Call, transport.Reply}, 3: {transport.Open, transport.End}} {
		send(t, client, &transport.Message{Kind: kinds[0], ID: id})
		m := recv(t, client)
		wantKind(t, m, kinds[1], id)
		if e := status.Parse(m.Header.Get(transport.HeaderError)); e == nil || !e.Refused || e.Code != status.Unavailable {
			t.Fatalf("a %s after GoAway was answered by %v, want a refusal", kinds[0], e)
		}
	}
	select {
	case err := <-done:
		t.Fatalf("Shutdown returned before the call was answered: %v", err)
	default:
	}
	close(hold)
	if m := recv(t, client); m.ID != 1 || string(m.Body) != "under way" {
		t.Fatalf("the call under way was answered by %d %q", m.ID, m.Body)
	}
	if err := <-done; err != nil {
		t.Fatalf("Shutdown: %v", err)
	}
	wantEOF(t, client)
}

func testShutdownContext(t *testing.T, h Harness) {
	client, server, l := connect(t, h)
	hold := make(chan struct{})
	echo(t, server, hold)
	defer close(hold)
	send(t, client, &transport.Message{Kind: transport.Call, ID: 1})
	send(t, client, &transport.Message{Kind: transport.Ping, ID: 9})
	wantKind(t, recv(t, client), transport.Pong, 9)
	ctx, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if err := <-shutdown(t, ctx, l); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Shutdown with a call that is never answered: %v, want the context's error", err)
	}
}

func testCaller(t *testing.T, h Harness) {
	client, server, _ := connect(t, h)
	echo(t, server, nil)
	calls := transport.NewCaller(client)
	req := &transport.Message{Header: metadata.Of("say", "x"), Body: []byte("y")}
	var rsp transport.Message
	for range 3 {
		if err := calls.Call(bounded(t), req, &rsp); err != nil || string(rsp.Body) != "y" || rsp.Header.Get("echo") != "x" {
			t.Fatalf("Call: %v, answer %q %q", err, rsp.Header, rsp.Body)
		}
	}
	if req.ID != 0 || req.Kind != 0 {
		t.Fatal("Call changed its request")
	}
	if err := calls.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	if err := calls.Call(bounded(t), req, &rsp); !transport.NotSent(err) {
		t.Fatalf("Call after Close: %v, want ErrNotSent", err)
	}
	<-calls.Done()
	if calls.Usable() || !errors.Is(calls.Err(), transport.ErrClosed) {
		t.Fatalf("after Close: usable %t, error %v", calls.Usable(), calls.Err())
	}
}

func testCallerContext(t *testing.T, h Harness) {
	client, server, _ := connect(t, h)
	calls := transport.NewCaller(client)
	defer calls.Close()
	ctx, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	var rsp transport.Message
	if err := calls.Call(ctx, &transport.Message{}, &rsp); !errors.Is(err, context.DeadlineExceeded) || transport.NotSent(err) {
		t.Fatalf("Call that is not answered: %v, want the context's error and not ErrNotSent", err)
	}
	call := recv(t, server)
	if !h.NoTimeout && (call.Timeout <= 0 || call.Timeout > 50*time.Millisecond) {
		t.Fatalf("the call came with a timeout of %s, want what was left of 50ms", call.Timeout)
	}
	wantKind(t, recv(t, server), transport.Cancel, call.ID)
	send(t, server, &transport.Message{Kind: transport.Reply, ID: call.ID, Body: []byte("late")}) // is dropped
	echo(t, server, nil)
	if err := echoed(bounded(t), calls, []byte("next")); err != nil {
		t.Fatalf("the call after one that was given up: %v", err)
	}
}

func testCallerConnectionLost(t *testing.T, h Harness) {
	client, server, _ := connect(t, h)
	calls := transport.NewCaller(client)
	defer calls.Close()
	got := make(chan error, 1)
	go func() {
		var rsp transport.Message
		got <- calls.Call(context.Background(), &transport.Message{}, &rsp)
	}()
	recv(t, server)
	server.Close()
	if err := <-got; err == nil || transport.NotSent(err) {
		t.Fatalf("Call whose connection was lost: %v, want an error that is not ErrNotSent", err)
	}
	<-calls.Done()
	var rsp transport.Message
	if err := calls.Call(bounded(t), &transport.Message{}, &rsp); !transport.NotSent(err) {
		t.Fatalf("Call on a lost connection: %v, want ErrNotSent", err)
	}
}

// testCallerDrained: a Caller ends by itself when the server goes away, after the calls under way.
func testCallerDrained(t *testing.T, h Harness) {
	client, server, l := connect(t, h)
	hold := make(chan struct{})
	echo(t, server, hold)
	calls := transport.NewCaller(client)
	defer calls.Close()
	got := make(chan error, 1)
	go func() { got <- echoed(context.Background(), calls, []byte("under way")) }()
	for calls.Waiting() == 0 {
		time.Sleep(time.Millisecond)
	}
	hold <- struct{}{} // the server has it
	go func() { got <- echoed(context.Background(), calls, []byte("second")) }()
	if err := <-got; err != nil {
		t.Fatalf("Call: %v", err)
	}
	for calls.Waiting() == 0 {
		time.Sleep(time.Millisecond)
	}
	done := shutdown(t, bounded(t), l)
	for calls.Usable() {
		time.Sleep(time.Millisecond)
	}
	var rsp transport.Message
	if err := calls.Call(bounded(t), &transport.Message{}, &rsp); !transport.NotSent(err) {
		t.Fatalf("Call after GoAway: %v, want ErrNotSent", err)
	}
	close(hold)
	<-got // answered, or refused where it crossed the GoAway
	<-calls.Done()
	if err := <-done; err != nil {
		t.Fatalf("Shutdown: %v", err)
	}
}
