package client

import (
	"context"
	"errors"
	"io"
	"iter"
	"slices"

	"github.com/cb02dfca/micro/pkg/codec"
)

// Receiver receives the answers of a server stream. It is for one goroutine at a time, but for Close.
type Receiver[Rsp any] struct{ stream *Stream }

// ServerStream opens a stream of one request and many answers, and sends the request. A nil req sends an empty message. The
// messages go by the codec that a call with req would take, or by that of the option ContentType. Who does not read to
// the end closes the Receiver. The error is an [*Error].
func ServerStream[Rsp any](ctx context.Context, c *Client, service, endpoint string, req any, opts ...CallOption) (*Receiver[Rsp], error) {
	s, err := c.open(ctx, service, endpoint, req, opts)
	if err != nil {
		return nil, err
	}
	// io.EOF says that the server has ended the stream, and Recv why.
	if err = s.Send(req); err == nil {
		err = s.CloseSend()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		_ = s.Close()
		return nil, err
	}
	return &Receiver[Rsp]{s}, nil
}

// Recv gives the next answer; io.EOF after the last. Another error is how the stream failed: a *status.Error where the server
// says so. With an error the stream is closed.
func (r *Receiver[Rsp]) Recv() (*Rsp, error) { return recv[Rsp](r.stream) }

// All yields the answers to the last. An error is yielded once, as the end. The stream is closed with the loop, however that ends.
func (r *Receiver[Rsp]) All() iter.Seq2[*Rsp, error] { return all[Rsp](r.stream) }

// Close ends the stream; the server learns that nobody reads on. It is safe to call twice, and while Recv waits.
func (r *Receiver[Rsp]) Close() error { return r.stream.Close() }

// Stream gives the stream below: its node, its content type.
func (r *Receiver[Rsp]) Stream() *Stream { return r.stream }

// Sender sends the requests of a client stream. It is for one goroutine at a time, but for Close.
type Sender[Req, Rsp any] struct{ stream *Stream }

// ClientStream opens a stream of many requests and one answer. The messages go by the codec that a call with a Req would take, or
// by that of the option ContentType. Who does not call CloseAndRecv closes the Sender. The error is an [*Error].
func ClientStream[Req, Rsp any](ctx context.Context, c *Client, service, endpoint string, opts ...CallOption) (*Sender[Req, Rsp], error) {
	s, err := c.open(ctx, service, endpoint, new(Req), opts)
	if err != nil {
		return nil, err
	}
	return &Sender[Req, Rsp]{s}, nil
}

// Send sends the next request. It waits while the server does not read. io.EOF says that the server has ended the stream:
// CloseAndRecv tells how.
func (s *Sender[Req, Rsp]) Send(req *Req) error { return s.stream.Send(req) }

// CloseAndRecv tells the server that no more requests come, gives its answer, and closes the stream.
func (s *Sender[Req, Rsp]) CloseAndRecv() (*Rsp, error) {
	if err := s.stream.CloseSend(); err != nil && !errors.Is(err, io.EOF) {
		_ = s.stream.Close()
		return nil, err
	}
	rsp, err := recv[Rsp](s.stream)
	if errors.Is(err, io.EOF) {
		return nil, errEndedEarly
	}
	if err == nil { // what ends the stream comes behind the answer
		if err = s.stream.drain(); err != nil {
			return nil, err
		}
	}
	return rsp, err
}

var errEndedEarly = errors.New("client: the server ended the stream without an answer")

// Close ends the stream without an answer: the server learns that its caller has gone. It is safe to call twice.
func (s *Sender[Req, Rsp]) Close() error { return s.stream.Close() }

// Stream gives the stream below.
func (s *Sender[Req, Rsp]) Stream() *Stream { return s.stream }

// Bidi is both ways of a bidirectional stream: one goroutine may send while another receives.
type Bidi[Req, Rsp any] struct{ stream *Stream }

// BidiStream opens a stream of many requests and many answers, in any order. The messages go by the codec that a call with a Req
// would take, or by that of the option ContentType. Who does not read to the end closes the Bidi. The error is an [*Error].
func BidiStream[Req, Rsp any](ctx context.Context, c *Client, service, endpoint string, opts ...CallOption) (*Bidi[Req, Rsp], error) {
	s, err := c.open(ctx, service, endpoint, new(Req), opts)
	if err != nil {
		return nil, err
	}
	return &Bidi[Req, Rsp]{s}, nil
}

// Send sends the next request. It waits while the server does not read. io.EOF says that the server has ended the stream: Recv
// tells how.
func (b *Bidi[Req, Rsp]) Send(req *Req) error { return b.stream.Send(req) }

// CloseSend tells the server that no more requests come; answers still do.
func (b *Bidi[Req, Rsp]) CloseSend() error { return b.stream.CloseSend() }

// Recv gives the next answer, as Receiver's does.
func (b *Bidi[Req, Rsp]) Recv() (*Rsp, error) { return recv[Rsp](b.stream) }

// All yields the answers to the last, as Receiver's does.
func (b *Bidi[Req, Rsp]) All() iter.Seq2[*Rsp, error] { return all[Rsp](b.stream) }

// Close ends the stream, as Receiver's does. It is safe to call twice, and while Send or Recv wait.
func (b *Bidi[Req, Rsp]) Close() error { return b.stream.Close() }

// Stream gives the stream below.
func (b *Bidi[Req, Rsp]) Stream() *Stream { return b.stream }

// open opens a stream in the content type that a call with v would go in, unless an option names another.
func (c *Client) open(ctx context.Context, service, endpoint string, v any, opts []CallOption) (*Stream, error) {
	if ct := c.contentTypeOf(v); ct != "" {
		opts = slices.Concat([]CallOption{ContentType(ct)}, opts)
	}
	return c.Stream(ctx, service, endpoint, opts...)
}

// contentTypeOf gives that of the first codec that can carry v; none where v is nil, or where no codec can.
func (c *Client) contentTypeOf(v any) string {
	if v == nil {
		return ""
	}
	for _, cd := range c.codecs {
		if _, err := cd.Append(nil, v); !errors.Is(err, codec.ErrUnsupported) {
			return cd.ContentType()
		}
	}
	return ""
}

// drain reads to the end of a stream that has given all its answers, and closes it: its connection is then free for others.
func (s *Stream) drain() error {
	defer s.Close()
	switch _, err := s.RecvRaw(); {
	case err == nil:
		return errors.New("client: the server gave a second answer to a client stream")
	case errors.Is(err, io.EOF):
		return nil
	default:
		return err
	}
}

func recv[Rsp any](s *Stream) (*Rsp, error) {
	rsp := new(Rsp)
	if err := s.Recv(rsp); err != nil {
		_ = s.Close()
		return nil, err
	}
	return rsp, nil
}

func all[Rsp any](s *Stream) iter.Seq2[*Rsp, error] {
	return func(yield func(*Rsp, error) bool) {
		defer s.Close()
		for {
			rsp, err := recv[Rsp](s)
			if errors.Is(err, io.EOF) || !yield(rsp, err) || err != nil {
				return
			}
		}
	}
}

// Join gives defaults followed by opts, which win. Generated clients call it: it allocates only where there are both.
func Join(defaults, opts []CallOption) []CallOption {
	switch {
	case len(defaults) == 0:
		return opts
	case len(opts) == 0:
		return defaults
	}
	return slices.Concat(defaults, opts)
}
