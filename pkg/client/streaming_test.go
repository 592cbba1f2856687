package client_test

import (
	"context"
	"testing"

	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/transport"
)

// tape is a transport whose connections take every message, and yield the same one without end.
type tape struct {
	wire
	data []byte
}

func (t *tape) Dial(context.Context, string) (transport.Conn, error) {
	return &tapeConn{tape: t}, nil
}

type tapeConn struct {
	*tape
	id     uint32
	opened bool
	sent   int
}

func (c *tapeConn) Send(_ context.Context, m *transport.Message) error {
	if m.Kind == transport.Open {
		c.id = m.ID
	}
	c.sent += len(m.Body)
	return nil
}

func (c *tapeConn) Recv(ctx context.Context, m *transport.Message) error {
	m.Reset()
	switch m.ID = c.id; {
	case !c.opened:
		c.opened, m.Kind = true, transport.Opened
	default:
		m.Kind, m.Body = transport.Data, append(m.Body, c.data...)
	}
	m.Header = append(m.Header, plainText...)
	return ctx.Err()
}

func (c *tapeConn) Close() error       { return nil }
func (c *tapeConn) RemoteAddr() string { return "tape" }

func playing(tb testing.TB, data []byte) *client.Stream {
	tb.Helper()
	c, err := client.New(client.WithTransport(&tape{data: data}), client.WithCodecs(codec.Set{texts{}}))
	if err != nil {
		tb.Fatal(err)
	}
	st, err := c.Stream(tb.Context(), "greeter", "Say.Chat", client.Address("tape"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = st.Close()
		_ = c.Close()
	})
	return st
}

// TestStreamAllocatesNothing: for a message, either way.
func TestStreamAllocatesNothing(t *testing.T) {
	st := playing(t, []byte("hello"))
	in, out := &text{[]byte("hello")}, &text{}
	n := testing.AllocsPerRun(1000, func() {
		if err := st.Send(in); err != nil {
			t.Fatal(err)
		}
		if err := st.Recv(out); err != nil || string(out.data) != "hello" {
			t.Fatalf("%q %v", out.data, err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations for a message each way", n)
	}
}

// BenchmarkStreamFramework is what messages of 1 KiB cost in this package.
func BenchmarkStreamFramework(b *testing.B) {
	data := make([]byte, 1<<10)
	b.Run("send", func(b *testing.B) {
		st, m := playing(b, data), &text{data}
		b.ReportAllocs()
		for b.Loop() {
			if err := st.Send(m); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("recv", func(b *testing.B) {
		st, m := playing(b, data), &text{}
		b.ReportAllocs()
		for b.Loop() {
			if err := st.Recv(m); err != nil {
				b.Fatal(err)
			}
		}
	})
}
