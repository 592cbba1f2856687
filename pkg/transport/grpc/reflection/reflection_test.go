package reflection_test

import (
	"context"
	"errors"
	"io"
	"reflect"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/grpc/reflection"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type helloRequest struct {
	Name string    `json:"name" doc:"who is greeted"`
	At   time.Time `json:"at"`
}

type helloResponse struct {
	Msg string `json:"msg"`
}

func greeter() []transport.Served {
	return []transport.Served{
		{Name: "Say.Hello", Doc: "Greets by name", Request: reflect.TypeFor[helloRequest](), Response: reflect.TypeFor[helloResponse]()},
		{Name: "Say.Count", ServerStreams: true, Request: reflect.TypeFor[wrapperspb.Int32Value](), Response: reflect.TypeFor[helloResponse]()},
		{Name: "Say.Echo"},
		{Name: "ping", Request: reflect.TypeFor[struct{}](), Response: reflect.TypeFor[string]()},
	}
}

var errUnimplemented = errors.New("unimplemented")

// pipe is a conversation without a network.
type pipe struct {
	questions, answers chan []byte
	done               chan struct{}
}

func (p *pipe) Send(m []byte) error {
	select {
	case p.questions <- m:
		return nil
	case <-p.done:
		return io.EOF
	}
}

func (p *pipe) Recv() ([]byte, error) {
	select {
	case m := <-p.answers:
		return m, nil
	case <-p.done:
		return nil, io.EOF
	}
}

func (p *pipe) Close() error {
	close(p.questions)
	<-p.done
	return nil
}

// opener opens conversations with s, of one version alone.
func opener(s *reflection.Server, version string) reflection.Open {
	return func(_ context.Context, method string) (reflection.Stream, error) {
		if method != version {
			return nil, errUnimplemented
		}
		p := &pipe{make(chan []byte), make(chan []byte, 1), make(chan struct{})}
		go func() {
			defer close(p.done)
			_ = s.Serve(func() ([]byte, error) {
				m, ok := <-p.questions
				if !ok {
					return nil, io.EOF
				}
				return m, nil
			}, func(m []byte) error { p.answers <- m; return nil })
		}()
		return p, nil
	}
}

func lacking(err error) bool { return errors.Is(err, errUnimplemented) }

func dial(t *testing.T, open reflection.Open) *reflection.Client {
	t.Helper()
	c, err := reflection.Dial(t.Context(), open, lacking)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestBothEnds holds that what a server tells is what a client finds, in both versions.
func TestBothEnds(t *testing.T) {
	t.Parallel()
	for _, version := range []string{reflection.MethodV1, reflection.MethodV1Alpha} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			s, err := reflection.NewServer("greeter", greeter())
			if err != nil {
				t.Fatal(err)
			}
			c := dial(t, opener(s, version))
			want := []string{"greeter.Say", "greeter.greeter", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"}
			if got := c.Services(); !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
			sd, err := c.Service("greeter.Say")
			if err != nil {
				t.Fatal(err)
			}
			hello := sd.Methods().ByName("Hello")
			if got := string(hello.Input().Fields().ByNumber(2).Message().FullName()); got != "google.protobuf.Timestamp" {
				t.Errorf("the second field is %s", got)
			}
			if got := hello.ParentFile().SourceLocations().ByDescriptor(hello).LeadingComments; got != " Greets by name\n" {
				t.Errorf("got the comment %q", got)
			}
			if m := sd.Methods().ByName("Count"); !m.IsStreamingServer() || m.IsStreamingClient() || m.Input().FullName() != "google.protobuf.Int32Value" {
				t.Errorf("got %v", m)
			}
			if got := sd.Methods().ByName("Echo").Input().FullName(); got != "google.protobuf.Value" {
				t.Errorf("what is not known is %s", got)
			}
			for _, name := range want {
				if _, err := c.Service(name); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			if _, err := c.Service("greeter.Sya"); !errors.Is(err, reflection.ErrNotFound) {
				t.Errorf("got %v, want ErrNotFound", err)
			}
			if _, err := c.Service("greeter.helloRequest"); !errors.Is(err, reflection.ErrNotFound) {
				t.Errorf("of a message: got %v, want ErrNotFound", err)
			}
		})
	}
}

// TestNone holds that a server without reflection is told from one that fails.
func TestNone(t *testing.T) {
	t.Parallel()
	_, err := reflection.Dial(t.Context(), opener(nil, "none"), lacking)
	if !errors.Is(err, reflection.ErrNone) {
		t.Errorf("got %v, want ErrNone", err)
	}
	broken := errors.New("broken")
	_, err = reflection.Dial(t.Context(), func(context.Context, string) (reflection.Stream, error) { return nil, broken }, lacking)
	if !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
}

// TestNames holds that names which protobuf does not have, and names that are taken, are no reason to serve nothing.
func TestNames(t *testing.T) {
	t.Parallel()
	const path, pkg = "my_service.proto", "my_service.v1"
	file := &descriptorpb.FileDescriptorProto{Name: new(string), Package: new(string), Syntax: new(string), Service: []*descriptorpb.ServiceDescriptorProto{{Name: new(string)}}}
	*file.Name, *file.Package, *file.Syntax, *file.Service[0].Name = path, pkg, "proto3", "Say"
	fd, err := protodesc.NewFile(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := reflection.NewServer("my-service.v1", []transport.Served{
		{Name: "Say.Hello", Request: reflect.TypeFor[helloRequest]()}, {Name: "a-b.c.2nd"},
	}, fd)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection", "my_service.v1.Say",
		"my_service.v1.micro.Say", "my_service.v1.micro.a_b_c"}
	if got := s.Services(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	c := dial(t, opener(s, reflection.MethodV1))
	sd, err := c.Service("my_service.v1.micro.a_b_c")
	if err != nil || sd.Methods().Get(0).Name() != "_2nd" {
		t.Errorf("got %v, %v", sd, err)
	}
}

// TestQuestions holds the answers to the questions that Client does not ask.
func TestQuestions(t *testing.T) {
	t.Parallel()
	s, err := reflection.NewServer("greeter", greeter(), protoreflect.FileDescriptor(descriptorpb.File_google_protobuf_descriptor_proto))
	if err != nil {
		t.Fatal(err)
	}
	text := func(number protowire.Number, value string) []byte {
		return protowire.AppendString(protowire.AppendTag(nil, number, protowire.BytesType), value)
	}
	for _, tc := range []struct {
		name string
		ask  []byte
		want protowire.Number // the field of the answer
	}{
		{"a file", text(3, "greeter.proto"), 4},
		{"no such file", text(3, "x.proto"), 7},
		{"a method", text(4, "greeter.Say.Hello"), 4},
		{"a field", text(4, "greeter.helloRequest.name"), 4},
		{"extensions", text(6, "google.protobuf.MethodOptions"), 5},
		{"extensions of nothing", text(6, "x"), 7},
		{"an extension", text(5, string(text(1, "google.protobuf.MethodOptions"))), 7},
		{"nothing", nil, 7},
		{"no message", []byte{0xff}, 7},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			asked := [][]byte{tc.ask}
			var got []byte
			err := s.Serve(func() ([]byte, error) {
				if len(asked) == 0 {
					return nil, io.EOF
				}
				q := asked[0]
				asked = asked[1:]
				return q, nil
			}, func(m []byte) error { got = m; return nil })
			if err != nil {
				t.Fatal(err)
			}
			var fields []protowire.Number
			for len(got) > 0 {
				number, wire, n := protowire.ConsumeTag(got)
				fields = append(fields, number)
				got = got[n:]
				got = got[protowire.ConsumeFieldValue(number, wire, got):]
			}
			if want := []protowire.Number{2, tc.want}; !slices.Equal(fields, want) {
				t.Errorf("got fields %v, want %v", fields, want)
			}
		})
	}
}

// script is a server that answers what a test says.
type script struct{ answers [][]byte }

func (s *script) Send([]byte) error { return nil }
func (s *script) Recv() ([]byte, error) {
	if len(s.answers) == 0 {
		return nil, io.EOF
	}
	a := s.answers[0]
	s.answers = s.answers[1:]
	return a, nil
}
func (s *script) Close() error { return nil }

// FuzzClient holds that no answer of a server makes a client fail otherwise than by an error.
func FuzzClient(f *testing.F) {
	list := protowire.AppendBytes(protowire.AppendTag(nil, 6, protowire.BytesType), nil)
	f.Add([]byte{})
	f.Add([]byte{0x22, 0x02, 0x0a, 0x00})
	f.Add([]byte{0x22, 0x0b, 0x0a, 0x09, 0x0a, 0x01, 'a', 0x1a, 0x01, 'a', 0x12, 0x01, 'p'}) // a file that imports itself
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := reflection.Dial(t.Context(), func(context.Context, string) (reflection.Stream, error) {
			return &script{[][]byte{list, data, data, data}}, nil
		}, lacking)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Service("x.Y")
	})
}
