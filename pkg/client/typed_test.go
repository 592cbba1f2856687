package client_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
)

// streams serves a stream of each kind. A Hello to "fail" fails it.
func streams(s *server.Server) {
	greet := func(in *Hello) (*Greeting, error) {
		if in.Name == "fail" {
			return nil, status.New(status.FailedPrecondition, "as asked")
		}
		return &Greeting{Msg: "Hello " + in.Name}, nil
	}
	_ = server.HandleServerStream(s, "Say.Twice", func(_ context.Context, in *Hello, out *server.Sender[Greeting]) error {
		g, err := greet(in)
		if err != nil {
			return err
		}
		return errors.Join(out.Send(g), out.Send(g))
	})
	_ = server.HandleClientStream(s, "Say.Last", func(_ context.Context, in *server.Receiver[Hello]) (*Greeting, error) {
		last := new(Greeting)
		for h, err := range in.All() {
			if err == nil {
				last, err = greet(h)
			}
			if err != nil {
				return nil, err
			}
		}
		return last, nil
	})
	_ = server.HandleBidi(s, "Say.Each", func(_ context.Context, st *server.Stream[Hello, Greeting]) error {
		for h, err := range st.All() {
			g := new(Greeting)
			if err == nil {
				g, err = greet(h)
			}
			if err == nil {
				err = st.Send(g)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	_ = server.HandleBidi(s, "Numbers.Each", func(_ context.Context, st *server.Stream[wrapperspb.Int32Value, wrapperspb.Int32Value]) error {
		for n, err := range st.All() {
			if err != nil {
				return err
			}
			if err := st.Send(n); err != nil {
				return err
			}
		}
		return nil
	})
}

// TestTypedStreams: of each kind, twice, and the second has the connection of the first.
func TestTypedStreams(t *testing.T) {
	t.Parallel()
	sys := newSystem(t)
	sys.node("greeter-1", streams, nil)
	c := sys.client()
	var reused []bool
	observe := client.Observe(func(e client.Event) {
		if e.Phase == client.Dial {
			reused = append(reused, e.Reused)
		}
	})
	for range 2 {
		in, err := client.ServerStream[Greeting](t.Context(), c, "greeter", "Say.Twice", &Hello{Name: "x"}, observe)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for g, err := range in.All() {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, g.Msg)
		}
		if !slices.Equal(got, []string{"Hello x", "Hello x"}) || in.Stream().ContentType() != "application/json" {
			t.Errorf("got %q in %s", got, in.Stream().ContentType())
		}

		out, err := client.ClientStream[Hello, Greeting](t.Context(), c, "greeter", "Say.Last", observe)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(out.Send(&Hello{Name: "a"}), out.Send(&Hello{Name: "b"})); err != nil {
			t.Fatal(err)
		}
		if g, err := out.CloseAndRecv(); err != nil || g.Msg != "Hello b" {
			t.Errorf("got %v, %v", g, err)
		}

		both, err := client.BidiStream[Hello, Greeting](t.Context(), c, "greeter", "Say.Each", observe)
		if err != nil {
			t.Fatal(err)
		}
		if err := both.Send(&Hello{Name: "c"}); err != nil {
			t.Fatal(err)
		}
		if g, err := both.Recv(); err != nil || g.Msg != "Hello c" {
			t.Errorf("got %v, %v", g, err)
		}
		if err := both.CloseSend(); err != nil {
			t.Error(err)
		}
		if _, err := both.Recv(); !errors.Is(err, io.EOF) { // it closes the stream
			t.Errorf("at the end: %v", err)
		}
	}
	if !slices.Equal(reused, []bool{false, true, true, true, true, true}) {
		t.Errorf("connections reused: %v", reused)
	}
}

// TestTypedStreamsFail: the handler's error comes through each of them.
func TestTypedStreamsFail(t *testing.T) {
	t.Parallel()
	sys := newSystem(t)
	sys.node("greeter-1", streams, nil)
	c, fail := sys.client(), &Hello{Name: "fail"}
	in, err := client.ServerStream[Greeting](t.Context(), c, "greeter", "Say.Twice", fail)
	if err == nil {
		for _, err = range in.All() {
		}
	}
	if status.CodeOf(err) != status.FailedPrecondition {
		t.Errorf("a server stream: %v", err)
	}
	out, err := client.ClientStream[Hello, Greeting](t.Context(), c, "greeter", "Say.Last")
	if err == nil {
		if err = out.Send(fail); err == nil {
			_, err = out.CloseAndRecv()
		}
	}
	if status.CodeOf(err) != status.FailedPrecondition {
		t.Errorf("a client stream: %v", err)
	}
	both, err := client.BidiStream[Hello, Greeting](t.Context(), c, "greeter", "Say.Each")
	if err == nil {
		if err = both.Send(fail); err == nil {
			_, err = both.Recv()
		}
	}
	if status.CodeOf(err) != status.FailedPrecondition {
		t.Errorf("a bidirectional stream: %v", err)
	}
	if _, err := client.ServerStream[Greeting](t.Context(), c, "greeter", "Say.Nothing", fail); err == nil {
		t.Error("a stream of no endpoint was opened")
	}
	wrong, err := client.ClientStream[Hello, Greeting](t.Context(), c, "greeter", "Numbers.Each")
	if err != nil {
		t.Fatal(err)
	}
	if g, err := wrong.CloseAndRecv(); err == nil {
		t.Errorf("a stream without an answer gave %v", g)
	}
}

// TestTypedStreamsSpeak: messages of protobuf go as such, unless an option says otherwise.
func TestTypedStreamsSpeak(t *testing.T) {
	t.Parallel()
	sys := newSystem(t)
	sys.node("greeter-1", streams, nil)
	c := sys.client()
	for want, opts := range map[string][]client.CallOption{"application/protobuf": nil, "application/json": {client.ContentType("application/json")}} {
		st, err := client.BidiStream[wrapperspb.Int32Value, wrapperspb.Int32Value](t.Context(), c, "greeter", "Numbers.Each", opts...)
		if err != nil {
			t.Fatal(err)
		}
		if err := st.Send(wrapperspb.Int32(7)); err != nil {
			t.Fatal(err)
		}
		if n, err := st.Recv(); err != nil || n.Value != 7 || st.Stream().ContentType() != want {
			t.Errorf("got %v, %v in %s, want %s", n, err, st.Stream().ContentType(), want)
		}
		_ = st.Close()
	}
}

func TestJoin(t *testing.T) {
	one := make([]client.CallOption, 1, 2)
	if n := testing.AllocsPerRun(100, func() { client.Join(nil, one); client.Join(one, nil) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if got := client.Join(one, one); len(got) != 2 || &got[0] == &one[0] {
		t.Errorf("%d options, in the storage of the defaults: %t", len(got), &got[0] == &one[0])
	}
}
