package interop_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/runtime/protoimpl"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/codec/json"
	"github.com/cb02dfca/micro/pkg/codec/jsonrpc"
	"github.com/cb02dfca/micro/pkg/codec/proto"
	"github.com/cb02dfca/micro/pkg/codec/protorpc"
	"github.com/cb02dfca/micro/pkg/codec/raw"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/micro"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/mdns"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/grpc"
)

// Request and Response are the protobuf messages of servers/gomicropeer's programs.
type (
	Request struct {
		Name  string `protobuf:"bytes,1,opt,name=name,proto3" json:"name,omitempty"`
		Count int64  `protobuf:"varint,2,opt,name=count,proto3" json:"count,omitempty"`
	}
	Response struct {
		Msg    string            `protobuf:"bytes,1,opt,name=msg,proto3" json:"msg,omitempty"`
		Seq    int64             `protobuf:"varint,2,opt,name=seq,proto3" json:"seq,omitempty"`
		Header map[string]string `protobuf:"bytes,3,rep,name=header,proto3" json:"header,omitempty" protobuf_key:"bytes,1,opt,name=key,proto3" protobuf_val:"bytes,2,opt,name=value,proto3"`
	}
	oldRequest  Request // without ProtoReflect, which package protoimpl makes for them
	oldResponse Response
)

func (m *oldRequest) Reset()          { *m = oldRequest{} }
func (m *oldRequest) String() string  { return fmt.Sprint(m.Name, m.Count) }
func (*oldRequest) ProtoMessage()     {}
func (m *oldResponse) Reset()         { *m = oldResponse{} }
func (m *oldResponse) String() string { return fmt.Sprint(m.Msg, m.Seq, m.Header) }
func (*oldResponse) ProtoMessage()    {}

// ProtoReflect is of protobuf.
func (m *Request) ProtoReflect() protoreflect.Message {
	return protoimpl.X.ProtoMessageV2Of((*oldRequest)(m)).ProtoReflect()
}

// ProtoReflect is of protobuf.
func (m *Response) ProtoReflect() protoreflect.Message {
	return protoimpl.X.ProtoMessageV2Of((*oldResponse)(m)).ProtoReflect()
}

// heard is a message that a subscriber of ours got.
type heard struct {
	topic, name string
	count       int64
	header      metadata.MD
}

// ours is a service of this project with the endpoints of servers/gomicropeer's programs, found by mDNS as go-micro's are.
type ours struct {
	*micro.Service
	heard chan heard
	up    chan struct{} // closed when it runs
	stop  func()        // ends it, and waits for it
}

const wait = 10 * time.Second

// codecs are those that `micro run` speaks with go-micro. It takes gRPC beside HTTP, too.
var codecs = codec.Set{json.Strict(), proto.New(), raw.New(), jsonrpc.New(json.Strict()), protorpc.New(proto.New())}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// serve runs a service of ours until the test ends, or stop is called. It hears the topics, those with a queue as a member of it.
func serve(t *testing.T, name string, topics map[string]string, options ...micro.Option) *ours {
	t.Helper()
	o := made(t, name, options...)
	for topic, queue := range topics {
		o.hear(t, topic, queue)
	}
	o.run(t)
	return o
}

// made is a service of ours that does not run yet.
func made(t *testing.T, name string, options ...micro.Option) *ours {
	t.Helper()
	r, err := mdns.New(mdns.Options{})
	must(t, err)
	t.Cleanup(func() { _ = r.Close() })
	speaks, err := grpc.New(grpc.Options{})
	must(t, err)
	o := &ours{heard: make(chan heard, 100), up: make(chan struct{})}
	options = append([]micro.Option{
		micro.Beside(speaks), micro.ServerOptions(server.Codecs(codecs)),
		micro.ClientOptions(client.WithCodecs(codecs), client.WithTransports(transport.Openers{"grpc": grpc.Open})),
		micro.Registry(r), micro.Signals(false), micro.Grace(0), micro.AfterStart(func(context.Context) error { close(o.up); return nil }),
	}, options...)
	o.Service, err = micro.New(name, options...)
	must(t, err)
	o.handle(t)
	return o
}

func (o *ours) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- o.Run(ctx) }()
	o.stop = sync.OnceFunc(func() { cancel(); must(t, <-ended) })
	t.Cleanup(o.stop)
	select {
	case <-o.up:
	case <-time.After(wait):
		t.Fatal("our service does not start")
	}
}

func (o *ours) handle(t *testing.T) {
	t.Helper()
	must(t, micro.Handle(o.Service, "Say.Hello", func(_ context.Context, req *Request) (*Response, error) {
		return &Response{Msg: "Hello " + req.Name + " from ours", Seq: req.Count}, nil
	}))
	must(t, micro.Handle(o.Service, "Say.Header", func(ctx context.Context, _ *Request) (*Response, error) {
		header := map[string]string{}
		for key, value := range metadata.Incoming(ctx).All() {
			header[key] = string(value)
		}
		return &Response{Header: header}, nil
	}))
	must(t, micro.Handle(o.Service, "Say.Fail", func(_ context.Context, req *Request) (*Response, error) {
		switch req.Name {
		case "plain":
			return nil, errors.New("a plain error")
		case "panic":
			panic("at the disco")
		}
		return nil, status.New(status.InvalidArgument, "bad name: %s", req.Name)
	}))
	must(t, micro.HandleBidi(o.Service, "Stream.Echo", func(_ context.Context, s *micro.Stream[Request, Response]) error {
		for {
			req, err := s.Recv()
			switch {
			case errors.Is(err, io.EOF) || err == nil && req.Name == "finish":
				return nil
			case err != nil:
				return err
			case req.Name == "fail":
				return status.New(status.PermissionDenied, "no more")
			}
			if err := s.Send(&Response{Msg: "echo " + req.Name, Seq: req.Count}); err != nil {
				return err
			}
		}
	}))
	must(t, micro.HandleServerStream(o.Service, "Stream.Count", func(_ context.Context, req *Request, s *micro.Sender[Response]) error {
		for n := range req.Count {
			if err := s.Send(&Response{Msg: "item " + req.Name, Seq: n + 1}); err != nil {
				return err
			}
		}
		return nil
	}))
}

// hear subscribes to a topic.
func (o *ours) hear(t *testing.T, topic, queue string) {
	t.Helper()
	var options []broker.SubscribeOption
	if queue != "" {
		options = append(options, broker.Queue(queue))
	}
	must(t, micro.Subscribe(o.Service, topic, func(ctx context.Context, m *Request) error {
		o.heard <- heard{topic, m.Name, m.Count, metadata.Incoming(ctx)}
		return nil
	}, options...))
}

// found waits until our registry has n nodes of a service.
func (o *ours) found(t *testing.T, service string, n int) []registry.Node {
	t.Helper()
	for end := time.Now().Add(wait); ; time.Sleep(20 * time.Millisecond) {
		nodes, err := o.Registry().Get(t.Context(), service)
		if err == nil && len(nodes) == n {
			return nodes
		}
		if time.Now().After(end) {
			t.Logf("our registry has %v of %s, %v", nodes, service, err)
			return nodes
		}
	}
}
