package micro

import (
	"context"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/server"
)

// Sender sends a server stream's answers, see [server.Sender].
type Sender[Rsp any] = server.Sender[Rsp]

// Receiver receives a client stream's requests, see [server.Receiver].
type Receiver[Req any] = server.Receiver[Req]

// Stream is both ways of a bidirectional stream, see [server.Stream].
type Stream[Req, Rsp any] = server.Stream[Req, Rsp]

// Handle registers a unary handler: "Say.Hello". Its error need not be looked at: Run fails with it.
func Handle[Req, Rsp any](s *Service, endpoint string, h func(context.Context, *Req) (*Rsp, error), opts ...server.EndpointOption) error {
	return server.Handle(s.server, endpoint, h, opts...)
}

// HandleInto registers a unary handler that fills its answer, which is the zero Rsp when it is called. With [server.Pooled] the
// messages of such a handler are used again, and a call allocates nothing but what the handler does.
func HandleInto[Req, Rsp any](s *Service, endpoint string, h func(context.Context, *Req, *Rsp) error, opts ...server.EndpointOption) error {
	return server.HandleInto(s.server, endpoint, h, opts...)
}

// HandleServerStream registers a handler of one request and many answers.
func HandleServerStream[Req, Rsp any](s *Service, endpoint string, h func(context.Context, *Req, *Sender[Rsp]) error, opts ...server.EndpointOption) error {
	return server.HandleServerStream(s.server, endpoint, h, opts...)
}

// HandleClientStream registers a handler of many requests and one answer.
func HandleClientStream[Req, Rsp any](s *Service, endpoint string, h func(context.Context, *Receiver[Req]) (*Rsp, error), opts ...server.EndpointOption) error {
	return server.HandleClientStream(s.server, endpoint, h, opts...)
}

// HandleBidi registers a handler of many requests and many answers, in any order.
func HandleBidi[Req, Rsp any](s *Service, endpoint string, h func(context.Context, *Stream[Req, Rsp]) error, opts ...server.EndpointOption) error {
	return server.HandleBidi(s.server, endpoint, h, opts...)
}

// Subscribe registers a handler of a topic's messages, decoded by their content type. The subscription stands from the
// start of Run to its end.
func Subscribe[T any](s *Service, topic string, h func(context.Context, *T) error, opts ...broker.SubscribeOption) error {
	return server.Subscribe(s.server, topic, h, opts...)
}

// Register registers every exported method of a struct, see [server.Server.Register] for the forms.
func (s *Service) Register(rcvr any, opts ...server.RegisterOption) error {
	return s.server.Register(rcvr, opts...)
}

// Subscribe registers a handler that sees a topic's messages as they came.
func (s *Service) Subscribe(topic string, h broker.Handler, opts ...broker.SubscribeOption) error {
	return s.server.Subscribe(topic, func(ctx context.Context, c *server.Call) error {
		return h(ctx, c.Message())
	}, opts...)
}
