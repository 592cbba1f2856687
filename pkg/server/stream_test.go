package server_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// TestStreamStorage: what a stream's handler received is valid until it receives again, in storage that is used again.
func TestStreamStorage(t *testing.T) {
	s := newServer(t)
	const messages = 1000
	body := func(i int) []byte { return bytes.Repeat([]byte{byte(i)}, 1+i%300) }
	got := make(chan int, 1)
	_ = s.Handle(server.Endpoint{Name: "Say.Check", Kind: server.ClientStream}, func(_ context.Context, c *server.Call) error {
		for i := 0; ; i++ {
			data, err := c.RecvRaw()
			if errors.Is(err, io.EOF) {
				got <- i
				return nil
			}
			if err != nil || !bytes.Equal(data, body(i)) {
				t.Errorf("message %d: %d bytes of %d, %v", i, len(data), data[:min(1, len(data))], err)
				got <- i
				return err
			}
		}
	})
	c := start(t, s)
	id := open(t, c, "Say.Check")
	for i := range messages {
		if err := c.Send(t.Context(), &transport.Message{Kind: transport.Data, ID: id, Body: body(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Send(t.Context(), &transport.Message{Kind: transport.End, ID: id}); err != nil {
		t.Fatal(err)
	}
	if n := <-got; n != messages {
		t.Errorf("%d messages of %d", n, messages)
	}
}

// TestStreamOfDeafPeer: a message that the peer does not take ends the stream after 10 seconds or a little less, counted for
// that message.
func TestStreamOfDeafPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		type end struct {
			err  error
			took time.Duration
			ctx  error
		}
		ended := make(chan end, 1)
		_ = server.HandleServerStream(s, "Say.Talk", func(ctx context.Context, _ *Hello, out *server.Sender[Greeting]) error {
			for range 7 { // with pauses, so that the watch has looked in vain
				if err := out.Send(&Greeting{"x"}); err != nil {
					return err
				}
				time.Sleep(3 * time.Second)
			}
			for {
				start := time.Now()
				if err := out.Send(&Greeting{"x"}); err != nil {
					ended <- end{err, time.Since(start), ctx.Err()}
					return err
				}
			}
		})
		c := start(t, s)
		id := open(t, c, "Say.Talk")
		for _, m := range []*transport.Message{{Kind: transport.Data, ID: id, Body: []byte(`{}`)}, {Kind: transport.End, ID: id}} {
			m.Header = call("", "").Header
			if err := c.Send(t.Context(), m); err != nil {
				t.Fatal(err)
			}
		}
		e := <-ended
		if status.CodeOf(e.err) != status.Unavailable || e.took < 9*time.Second || e.took > 10*time.Second || e.ctx == nil {
			t.Errorf("error %v after %v, context %v", e.err, e.took, e.ctx)
		}
	})
}

// sink is a connection that opens one stream, and takes what the stream sends.
type sink struct {
	transport.Conn
	open   chan *transport.Message
	closed chan struct{}
}

func (s *sink) Recv(_ context.Context, m *transport.Message) error {
	select {
	case in := <-s.open:
		*m = *in
		return nil
	case <-s.closed:
		return transport.ErrClosed
	}
}

func (s *sink) Send(context.Context, *transport.Message) error { return nil }

type sinkListener struct {
	transport.Listener
	conn transport.Conn
}

func (l *sinkListener) Accept() (transport.Conn, error) {
	if c := l.conn; c != nil {
		l.conn = nil
		return c, nil
	}
	return l.Listener.Accept()
}

// sending runs f with a stream's Sender on a connection that takes everything.
func sending(t testing.TB, f func(send func())) {
	t.Helper()
	s := summing(t)
	done := make(chan struct{})
	_ = server.HandleServerStream(s, "Sum.Count", func(_ context.Context, in *Sum, out *server.Sender[Sum]) error {
		defer close(done)
		f(func() {
			if err := out.Send(in); err != nil {
				t.Error(err)
			}
		})
		return nil
	})
	l, dial := listen(t)
	c := &sink{Conn: dial(), open: make(chan *transport.Message, 2), closed: make(chan struct{})}
	header := call("Sum.Count", "", transport.HeaderContentType, "application/x-sum", "a", "1", "b", "2", "c", "3", "d", "4").Header
	body, _ := plainCodec{}.Append(nil, &Sum{1, 2})
	c.open <- &transport.Message{Kind: transport.Open, ID: 1, Header: header}
	c.open <- &transport.Message{Kind: transport.Data, ID: 1, Body: body}
	stop := serve(s, &sinkListener{l, c})
	<-done
	close(c.closed)
	_ = c.Conn.Close()
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// sendAllocations counts the allocations of a stream's Send.
func sendAllocations(t *testing.T) (n float64) {
	t.Helper()
	sending(t, func(send func()) { n = testing.AllocsPerRun(1000, send) })
	return n
}

func BenchmarkStreamSend(b *testing.B) {
	sending(b, func(send func()) {
		b.ReportAllocs()
		for b.Loop() {
			send()
		}
	})
}
