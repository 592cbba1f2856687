package grpc

import (
	"context"
	"sync"

	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/codec/protostruct"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/grpc/reflection"
)

// protobufType is the content type of the messages of nearly all callers.
const protobufType = "application/protobuf"

// reflect has the server speak to callers who know nothing but protobuf, whatever its handlers take, and tell them what it serves.
func (l *Listener) reflect(e transport.Endpoints) {
	if w, ok := e.(codec.Widener); ok {
		w.Widen(func(c codec.Codec) codec.Codec {
			if c.ContentType() == protobufType {
				return protostruct.New(c)
			}
			return c
		})
	}
	d, ok := e.(transport.Describer)
	if !ok {
		return
	}
	// Descriptors are made for the first who asks: most services are never asked.
	l.reflected = sync.OnceValues(func() (*reflection.Server, error) {
		return reflection.NewServer(e.Service(), d.Describe(), reflection.Health())
	})
	for _, name := range []string{reflection.V1, reflection.V1Alpha} {
		if _, set := l.services[name]; !set {
			l.services[name] = l.serveReflection
		}
	}
}

// serveReflection is gRPC's reflection service.
func (l *Listener) serveReflection(_ context.Context, c *Call) error {
	if c.Method() != reflection.Method {
		return status.Refuse(status.Unimplemented, "there is no method %.100q of reflection", c.Method())
	}
	s, err := l.reflected()
	if err != nil {
		return status.Wrap(err, status.Internal, "there are no descriptors: %v", err)
	}
	return s.Serve(c.Recv, c.Send)
}

// findReflected finds an endpoint whose name protobuf does not have: reflection tells another in its place.
func (l *Listener) findReflected(name string) (endpoint string, stream, known bool) {
	if l.reflected == nil {
		return name, false, false
	}
	s, err := l.reflected()
	if err != nil {
		return name, false, false
	}
	if endpoint = s.Endpoint(name); endpoint == "" {
		return name, false, false
	}
	stream, known = l.endpoints.Lookup(endpoint)
	return endpoint, stream, known
}
