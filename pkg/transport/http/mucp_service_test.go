package http_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/codec/json"
	"github.com/cb02dfca/micro/pkg/codec/jsonrpc"
	protocodec "github.com/cb02dfca/micro/pkg/codec/proto"
	"github.com/cb02dfca/micro/pkg/codec/protorpc"
	rawcodec "github.com/cb02dfca/micro/pkg/codec/raw"
	services "github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport/http"
)

// The messages of the service that go-micro's clients were captured with: a name and a number, and a text and a number.
var question, reply = messages()

func messages() (question, reply protoreflect.MessageDescriptor) {
	message := func(name, text, number string) *descriptorpb.DescriptorProto {
		optional := descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()
		return &descriptorpb.DescriptorProto{Name: proto.String(name), Field: []*descriptorpb.FieldDescriptorProto{
			{Name: proto.String(text), JsonName: proto.String(text), Number: proto.Int32(1), Label: optional, Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum()},
			{Name: proto.String(number), JsonName: proto.String(number), Number: proto.Int32(2), Label: optional, Type: descriptorpb.FieldDescriptorProto_TYPE_INT64.Enum()},
		}}
	}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("greeter.proto"), Package: proto.String("greeter"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{message("Request", "name", "count"), message("Response", "msg", "seq")},
	}, nil)
	if err != nil {
		panic(err)
	}
	return file.Messages().Get(0), file.Messages().Get(1)
}

// receive gives the name and the number in the next message.
func receive(c *services.Call) (name string, count int64, err error) {
	m := dynamicpb.NewMessage(question)
	if err := c.Recv(m); err != nil {
		return "", 0, err
	}
	return m.Get(question.Fields().Get(0)).String(), m.Get(question.Fields().Get(1)).Int(), nil
}

// send sends a message.
func send(c *services.Call, text string, seq int64) error {
	m := dynamicpb.NewMessage(reply)
	m.Set(reply.Fields().Get(0), protoreflect.ValueOfString(text))
	if seq != 0 {
		m.Set(reply.Fields().Get(1), protoreflect.ValueOfInt64(seq))
	}
	return c.Send(m)
}

// sayHello greets.
func sayHello(version string) services.Handler {
	return func(_ context.Context, c *services.Call) error {
		name, count, err := receive(c)
		if err != nil {
			return err
		}
		return send(c, "Hello "+name+" from "+version, count)
	}
}

// sayFail fails as it is told.
func sayFail(ctx context.Context, c *services.Call) error {
	name, count, err := receive(c)
	switch {
	case err != nil:
		return err
	case name == "plain":
		return errors.New("plain error")
	case name == "panic":
		panic("as told")
	case name == "slow":
		select {
		case <-time.After(time.Duration(count) * time.Millisecond):
			return send(c, "slow", count)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return status.New(status.InvalidArgument, "bad name: %s", name)
}

// sayStream repeats what it gets.
func sayStream(_ context.Context, c *services.Call) error {
	for {
		name, count, err := receive(c)
		switch {
		case errors.Is(err, io.EOF), err == nil && name == "finish":
			return nil
		case err != nil:
			return err
		case name == "fail":
			return status.New(status.PermissionDenied, "stream refused")
		}
		if err := send(c, "echo "+name, count); err != nil {
			return err
		}
	}
}

// sayServerStream counts.
func sayServerStream(_ context.Context, c *services.Call) error {
	name, count, err := receive(c)
	if err != nil {
		return err
	}
	for n := range count {
		if err := send(c, "item "+name, n+1); err != nil {
			return err
		}
	}
	return nil
}

// greeter serves what go-micro's clients were captured with, and gives its address. change may add to it.
func greeter(t *testing.T, version string, o http.Options, change func(s *services.Server)) string {
	t.Helper()
	s := newGreeter(t, version)
	if change != nil {
		change(s)
	}
	address, stop := serveAt(t, s, o, "127.0.0.1:0")
	t.Cleanup(stop)
	return address
}

// newGreeter gives the service.
func newGreeter(t *testing.T, version string) *services.Server {
	t.Helper()
	js, pb := json.Strict(), protocodec.New()
	s, err := services.New("greeter", services.Codecs(codec.Set{js, pb, rawcodec.New(), jsonrpc.New(js), protorpc.New(pb)}))
	if err != nil {
		t.Fatal(err)
	}
	for name, h := range map[string]services.Handler{"Say.Hello": sayHello(version), "Say.Fail": sayFail, "Plain.Hello": sayHello(version)} {
		if err := s.Handle(services.Endpoint{Name: name}, h); err != nil {
			t.Fatal(err)
		}
	}
	for name, h := range map[string]services.Handler{
		"Say.Stream": sayStream, "Say.ServerStream": sayServerStream, "Stream.Echo": sayStream, "Stream.Count": sayServerStream,
	} {
		if err := s.Handle(services.Endpoint{Name: name, Kind: services.Bidi}, h); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// serveAt serves until stop is called.
func serveAt(t *testing.T, s *services.Server, o http.Options, at string) (address string, stop func()) {
	t.Helper()
	l, err := newTransport(t, o).Listen(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	return l.Addr(), func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}
}

// goMicroCall gives a request as go-micro's clients send it. headers are name, value and so on.
func goMicroCall(endpoint, body string, headers ...string) string {
	text := "POST / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: Go-http-client/1.1\r\nMicro-Service: greeter\r\nMicro-Endpoint: " + endpoint +
		"\r\nMicro-Method: " + endpoint + "\r\n"
	typed, framed := false, false
	for i := 0; i < len(headers); i += 2 {
		text += headers[i] + ": " + headers[i+1] + "\r\n"
		typed = typed || headers[i] == "Content-Type"
		framed = framed || headers[i] == "Transfer-Encoding" || headers[i] == "Content-Length"
	}
	if !typed {
		text += "Content-Type: application/json\r\n"
	}
	if !framed {
		text += fmt.Sprintf("Content-Length: %d\r\n", len(body))
	}
	return text + "\r\n" + body
}
