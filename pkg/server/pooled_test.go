package server_test

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/codec/json"
	"github.com/cb02dfca/micro/pkg/codec/proto"
	"github.com/cb02dfca/micro/pkg/server"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type List struct {
	Names []string `json:"names,omitempty"`
	Note  string   `json:"note,omitempty"`
}

// Lists has the forms that reflection calls.
type Lists struct{ fill func(in, out *List) }

func (l *Lists) Fill(_ context.Context, in, out *List) error { l.fill(in, out); return nil }

func (l *Lists) Return(_ context.Context, in *List) (*List, error) {
	out := new(List)
	l.fill(in, out)
	return out, nil
}

// TestPooled: pooled messages are empty when a handler gets them, whatever it did to them before, and in all forms.
func TestPooled(t *testing.T) {
	shared := []string{"shared", "by", "all"}
	fill := func(in, out *List) {
		if len(out.Names) != 0 || out.Note != "" {
			t.Errorf("the answer was not empty: %+v", out)
		}
		switch in.Note {
		case "shared":
			out.Names = shared
		case "echo":
			out.Names = in.Names
		default:
			out.Names = append(out.Names[:0], "own")
		}
		out.Note = strconv.Itoa(len(in.Names))
	}
	s := newServer(t)
	_ = server.HandleInto(s, "Lists.Into", func(_ context.Context, in, out *List) error { fill(in, out); return nil }, server.Pooled())
	_ = server.Handle(s, "Lists.Handle", func(_ context.Context, in *List) (*List, error) {
		out := new(List)
		fill(in, out)
		return out, nil
	}, server.Pooled())
	if err := s.Register(&Lists{fill}, server.Method("Fill", server.Pooled()), server.Method("Return", server.Pooled())); err != nil {
		t.Fatal(err)
	}
	c := direct(t, s)
	for _, endpoint := range []string{"Lists.Into", "Lists.Handle", "Lists.Fill", "Lists.Return"} {
		for range 3 {
			for body, want := range map[string]string{
				`{"names":["a","b"],"note":"echo"}`: `{"names":["a","b"],"note":"2"}`,
				`{"note":"shared"}`:                 `{"names":["shared","by","all"],"note":"0"}`,
				`{}`:                                `{"names":["own"],"note":"0"}`,
				``:                                  `{"names":["own"],"note":"0"}`,
			} {
				d := c.with(endpoint, body)
				if d.call(0); string(d.rsp.Body) != want {
					t.Errorf("%s of %s: %s %v", endpoint, body, d.rsp.Body, errorOf(&d.rsp))
				}
			}
			broken := c.with(endpoint, `{"names":["left","over"],"note":3}`)
			if broken.call(0); errorOf(&broken.rsp) == nil {
				t.Errorf("%s: a broken request was taken", endpoint)
			}
		}
	}
	if !slices.Equal(shared, []string{"shared", "by", "all"}) {
		t.Errorf("a handler's own slice was written to: %q", shared)
	}
}

// Buffer is emptied by a method that keeps its storage.
type Buffer struct{ Data []byte }

func (b *Buffer) ResetVT() { b.Data = b.Data[:0] }

// bufferCodec carries Buffers.
type bufferCodec struct{ plainCodec }

func (bufferCodec) Append(dst []byte, v any) ([]byte, error) {
	return append(dst, v.(*Buffer).Data...), nil
}

func (bufferCodec) Unmarshal(data []byte, v any) error {
	b := v.(*Buffer)
	if len(b.Data) > 0 {
		panic("not empty")
	}
	b.Data = append(b.Data, data...)
	return nil
}

// TestPooledKeepsStorage: the storage of a request's fields is used again, and never that which an answer was given.
func TestPooledKeepsStorage(t *testing.T) {
	s, err := server.New("greeter", server.Codecs(codec.Set{bufferCodec{}}))
	if err != nil {
		t.Fatal(err)
	}
	own, kept := []byte("the handler's own"), 0
	_ = server.HandleInto(s, "Buffer.Swap", func(_ context.Context, in, out *Buffer) error {
		if cap(out.Data) > 0 {
			t.Error("the answer has storage that may be another's")
		}
		if cap(in.Data) >= 1<<10 && len(in.Data) == 1 {
			kept++
		}
		out.Data = own
		return nil
	}, server.Pooled())
	c := direct(t, s)
	large, small := c.to("Buffer.Swap", "application/x-sum", nil), c.to("Buffer.Swap", "application/x-sum", nil)
	large.req.Body, small.req.Body = make([]byte, 1<<10), []byte("x")
	for range 100 {
		large.call(0)
		if small.call(0); string(small.rsp.Body) != "the handler's own" {
			t.Fatalf("%s %v", small.rsp.Body, errorOf(&small.rsp))
		}
	}
	if kept == 0 {
		t.Error("no storage was used again")
	}
}

// TestPooledProtobuf: messages of package proto are emptied too.
func TestPooledProtobuf(t *testing.T) {
	s, err := server.New("greeter", server.Codecs(codec.Set{proto.New(), json.New()}))
	if err != nil {
		t.Fatal(err)
	}
	_ = server.HandleInto(s, "Text.Upper", func(_ context.Context, in, out *wrapperspb.StringValue) error {
		if out.GetValue() != "" {
			t.Error("the answer was not empty")
		}
		out.Value = strings.ToUpper(in.GetValue())
		return nil
	}, server.Pooled())
	c := direct(t, s)
	for range 3 {
		for body, want := range map[string]string{`"x"`: `"X"`, ``: `""`} {
			d := c.with("Text.Upper", body)
			if d.call(0); string(d.rsp.Body) != want {
				t.Errorf("%s: %s %v", body, d.rsp.Body, errorOf(&d.rsp))
			}
		}
	}
}

// TestOptionsThatSayNothing: an option that would do nothing is refused.
func TestOptionsThatSayNothing(t *testing.T) {
	for name, register := range map[string]func(s *server.Server) error{
		"Pooled of a handler without types": func(s *server.Server) error {
			return s.Handle(server.Endpoint{Name: "A.B"}, func(context.Context, *server.Call) error { return nil }, server.Pooled())
		},
		"Pooled of a stream": func(s *server.Server) error {
			return server.HandleBidi(s, "A.B", func(context.Context, *server.Stream[Hello, Greeting]) error { return nil }, server.Pooled())
		},
		"Inline of a stream": func(s *server.Server) error {
			return server.HandleServerStream(s, "A.B", func(context.Context, *Hello, *server.Sender[Greeting]) error { return nil }, server.Inline())
		},
		"Blocking of a stream": func(s *server.Server) error {
			return s.Register(new(Say), server.Skip("Close"), server.Method("Count", server.Blocking()))
		},
		"no handler": func(s *server.Server) error { return server.HandleInto[Hello, Greeting](s, "A.B", nil) },
	} {
		if err := register(newServer(t)); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}
