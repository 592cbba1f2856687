package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/codec/proto"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// Stream is an open stream. One goroutine may send while another receives; Close may be called at any time.
type Stream struct {
	client *Client
	codec  codec.Codec
	node   registry.Node
	conn   transport.Conn
	ctx    context.Context
	cancel context.CancelFunc
	unhook func() bool
	id     uint32
	late   *opening // nil where the stream was opened before there was a Stream

	envelope codec.Envelope // of each message; nil where there is none
	endpoint string

	in        transport.Message // the last one received
	out       transport.Message // the last one sent by Send or SendRaw
	body      []byte            // storage of what Send encodes
	sent      atomic.Bool       // our End went out
	ended     atomic.Bool       // the server's End came
	leaving   bool              // the server takes no more streams on the connection; of the receiver
	closeOnce sync.Once
}

// Stream opens a stream of service's endpoint, and waits until a node has taken it, as long as a call may take; a node that
// refuses it loses it to another. The call options' Timeout bounds its whole life; without one it has no end but ctx's. Content types of
// envelopes are for streams to services of go-micro alone. The caller closes it. The error is an [*Error].
//
// The stream is opened in the content type that [ContentType] names, else JSON. One over gRPC, where servers of another make know
// protobuf alone, is opened by what is sent or received first: in protobuf where that is a message of it, else in JSON, as with SendRaw
// and RecvRaw.
func (c *Client) Stream(ctx context.Context, service, endpoint string, opts ...CallOption) (*Stream, error) {
	k := newCall(c, 0) // it lives as long as the stream's opening needs it, and is not used again
	k.choose(opts)
	o := k.opts
	if o.err != nil {
		return nil, o.err
	}
	contentType := o.contentType
	if contentType == "" {
		contentType = c.codecs[len(c.codecs)-1].ContentType()
	}
	if _, err := c.all.For(contentType); err != nil {
		return nil, fmt.Errorf("client: stream of %s %s: %w", service, endpoint, err)
	}
	k.req = Request{Service: service, Endpoint: endpoint, ContentType: contentType, Header: o.header, Stream: true}
	rsp, err := k.invoke(ctx)
	switch e := c.envelope(contentType); {
	case e != nil && errors.Is(err, codec.ErrUnsupported): // no matter which node
		return nil, fmt.Errorf("client: stream of %s %s: %w", service, endpoint,
			codec.Unsupported("%s is for calls: open the stream in %s", contentType, e.Values().ContentType()))
	case err != nil:
		return nil, err
	case rsp == nil:
		return nil, k.unanswered()
	case rsp.stream == nil:
		return nil, fmt.Errorf("client: stream of %s %s: a middleware answered in its place", service, endpoint)
	}
	return rsp.stream, nil
}

// tryStream opens a stream to the node.
func (t *trial) tryStream() (Phase, error) {
	start := t.clock()
	addr := t.client.others.address(t.node)
	envelope := t.client.envelope(t.req.ContentType)
	if envelope != nil && !strings.HasPrefix(addr, "mucp://") {
		return Dial, fmt.Errorf("%w: %w", transport.ErrNotSent,
			codec.Unsupported("streams in %s are for services of go-micro", t.req.ContentType))
	}
	conn, reused, err := t.client.pool.conn(t.ctx, addr)
	t.observe(Dial, start, reused, err)
	if err != nil {
		return Dial, err
	}
	t.stale = reused
	cd, _ := t.client.codecs.For(t.req.ContentType) // looked at by Stream
	s := &Stream{client: t.client, codec: cd, node: *t.node, conn: conn, id: t.client.streams.Add(1), envelope: envelope, endpoint: t.req.Endpoint}
	if envelope != nil {
		s.codec = envelope.Values()
	}
	if timeout := t.call.opts.timeout; timeout > 0 {
		s.ctx, s.cancel = context.WithTimeout(t.ctx, timeout)
	} else {
		s.ctx, s.cancel = context.WithCancel(t.ctx)
	}
	start = t.clock()
	if late, ok := conn.(transport.Unheard); ok && t.call.opts.contentType == "" {
		s.late = &opening{header: t.header.md.Clone()}
		err = late.AwaitOpen()
	} else {
		err = s.sendOpen(t.header.md)
	}
	t.observe(Send, start, false, err)
	if err != nil {
		s.cancel()
		_ = conn.Close()
		if reused { // whoever closed an idle connection has not run the stream
			err = fmt.Errorf("%w: %w", transport.ErrNotSent, err)
		}
		return Send, err
	}
	s.unhook = context.AfterFunc(s.ctx, s.abandon)
	start = t.clock()
	if s.late == nil {
		err = s.awaitOpened(t.client.timeout)
	}
	if err != nil {
		_ = s.Close()
		t.observe(Wait, start, false, err)
		return Wait, err
	}
	t.observe(Done, start, false, nil)
	t.rsp = Response{ContentType: t.req.ContentType, Node: *t.node, stream: s}
	return Done, nil
}

// sendOpen asks for the stream.
func (s *Stream) sendOpen(header metadata.MD) (err error) {
	open := &transport.Message{Kind: transport.Open, ID: s.id, Timeout: remaining(s.ctx), Header: header}
	if s.envelope != nil { // go-micro's servers read this one, too
		if open.Body, err = s.enclose(nil); err != nil {
			return err
		}
	}
	return s.conn.Send(s.ctx, open)
}

// opening is that of a stream which waits for its first message.
type opening struct {
	over   atomic.Bool // the fields below no longer change
	mu     sync.Mutex
	header metadata.MD // without the right content type
	end    bool        // CloseSend was called
	err    error       // why it was in vain
}

// open opens the stream, unless it is open: in protobuf where v is a message of that, else as it was to be.
func (s *Stream) open(v any) error {
	o := s.late
	if o == nil {
		return nil
	}
	if !o.over.Load() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if !o.over.Load() {
			o.err = s.openLate(v)
			o.over.Store(true)
		}
	}
	return o.err
}

// openLate is called once, with the lock of s.late.
func (s *Stream) openLate(v any) error {
	if s.client.contentTypeOf(v) == proto.ContentType {
		s.codec, _ = s.client.codecs.For(proto.ContentType) // which is one of them
	}
	header, err := s.late.header.Set(transport.HeaderContentType, s.codec.ContentType())
	if err == nil {
		err = s.failed(s.sendOpen(header))
	}
	if err == nil {
		err = s.awaitOpened(s.client.timeout)
	}
	if err == nil && s.late.end {
		err = s.failed(s.conn.Send(s.ctx, &transport.Message{Kind: transport.End, ID: s.id}))
	}
	return err
}

// ends notes that no messages come, and reports whether the stream is still to be opened.
func (o *opening) ends() bool {
	if o == nil || o.over.Load() {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.end = !o.over.Load()
	return o.end
}

// remaining is the time to ctx's deadline; 0 for none.
func remaining(ctx context.Context) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		return max(time.Until(deadline), 1)
	}
	return 0
}

// awaitOpened waits until the server has taken the stream, or tells why not.
func (s *Stream) awaitOpened(patience time.Duration) error {
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	for {
		if err := s.conn.Recv(ctx, &s.in); err != nil {
			return broken(s.failed(err))
		}
		if s.in.Kind == transport.GoAway {
			s.leaving = true
		}
		if s.in.ID != s.id {
			continue // of the stream that had the connection before
		}
		switch s.in.Kind {
		case transport.Opened:
			return nil
		case transport.End:
			s.ended.Store(true) // who sees it sees leaving, too
			if e := status.Parse(s.in.Header.Get(transport.HeaderError)); e != nil {
				return e
			}
		}
		return fmt.Errorf("%w: %s answered the opening of a stream by %s", transport.ErrProtocol, s.node.ID, s.in.Kind)
	}
}

// Node is who serves the stream.
func (s *Stream) Node() registry.Node { return s.node }

// ContentType is the codec of the messages that are sent. It opens a stream that is not open yet, as SendRaw does.
func (s *Stream) ContentType() string {
	_ = s.open(nil) // whoever uses the stream is told
	return s.codec.ContentType()
}

// Send encodes v and sends it. It waits while the server does not read. io.EOF says that the server has ended the stream:
// Recv tells how.
func (s *Stream) Send(v any) error {
	if err := s.open(v); err != nil {
		return err
	}
	body, err := s.codec.Append(s.body[:0], v)
	if err != nil {
		return fmt.Errorf("client: message to %s: %w", s.node.ID, err)
	}
	s.out.Give = true // the storage is the stream's
	err = s.send(body)
	if s.body = s.out.Body; cap(s.body) > keepBody {
		s.body = nil
	}
	return err
}

// SendRaw sends an encoded message. body is not retained.
func (s *Stream) SendRaw(body []byte) error {
	if err := s.open(nil); err != nil {
		return err
	}
	s.out.Give = false
	err := s.send(body)
	s.out.Body = nil
	return err
}

// send sends body in s.out, whose Give is set.
func (s *Stream) send(body []byte) error {
	s.out.Kind, s.out.ID, s.out.Body = transport.Data, s.id, body
	if s.ended.Load() {
		return io.EOF
	}
	if s.sent.Load() {
		return errors.New("client: send after CloseSend")
	}
	if s.envelope != nil {
		var err error
		if s.out.Body, err = s.enclose(body); err != nil {
			return fmt.Errorf("client: message to %s: %w", s.node.ID, err)
		}
		s.out.Give = false
	}
	return s.failed(s.conn.Send(s.ctx, &s.out))
}

// enclose gives a message with body in the stream's envelope. All have one number: go-micro's servers answer with that of the last.
func (s *Stream) enclose(body []byte) ([]byte, error) {
	return s.envelope.AppendRequest(nil, s.endpoint, 0, body)
}

// CloseSend tells the server that no more messages come; answers still do. A service of go-micro does not tell how a handler that has seen
// this ends, unless it fails: it is asked, so that the stream's end comes some 50 ms late, and later behind a long silence.
func (s *Stream) CloseSend() error {
	if s.ended.Load() || s.sent.Swap(true) || s.late.ends() {
		return nil
	}
	return s.failed(s.conn.Send(s.ctx, &transport.Message{Kind: transport.End, ID: s.id}))
}

// Recv decodes the next answer into v; io.EOF after the last. Another error is how the stream failed: a *status.Error
// where the server says so.
func (s *Stream) Recv(v any) error {
	if err := s.open(v); err != nil {
		return err
	}
	body, err := s.RecvRaw()
	if err != nil {
		return err
	}
	cd := s.codec
	if ct, _ := s.in.Header.Bytes(transport.HeaderContentType); s.envelope == nil && len(ct) > 0 && string(ct) != cd.ContentType() {
		if cd, err = s.client.codecs.For(string(ct)); err != nil {
			return fmt.Errorf("client: answer of %s: %w", s.node.ID, err)
		}
	}
	if err := cd.Unmarshal(body, v); err != nil {
		return fmt.Errorf("client: answer of %s does not decode: %w", s.node.ID, err)
	}
	return nil
}

// RecvRaw gives the next answer as it came, valid until the next Recv; io.EOF after the last.
func (s *Stream) RecvRaw() ([]byte, error) {
	if err := s.open(nil); err != nil {
		return nil, err
	}
	for !s.ended.Load() {
		if err := s.conn.Recv(s.ctx, &s.in); err != nil {
			return nil, broken(s.failed(err))
		}
		if s.in.Kind == transport.GoAway {
			s.leaving = true
		}
		if s.in.ID != s.id {
			continue // of the stream that had the connection before
		}
		switch s.in.Kind {
		case transport.Data:
			if s.envelope != nil {
				body, err := s.envelope.ReadResponse(s.in.Body, 0)
				if err != nil {
					return nil, fmt.Errorf("client: answer of %s: %w", s.node.ID, err)
				}
				return body, nil
			}
			return s.in.Body, nil
		case transport.End:
			s.ended.Store(true) // who sees it sees leaving, too
			if e := status.Parse(s.in.Header.Get(transport.HeaderError)); e != nil {
				return nil, e
			}
		}
	}
	return nil, io.EOF
}

// failed puts the context's end in the place of what it did to the connection.
func (s *Stream) failed(err error) error {
	if err != nil && s.ctx.Err() != nil {
		return s.ctx.Err()
	}
	return err
}

// abandon tells the server that nobody waits any longer. It runs when the stream's context ends.
func (s *Stream) abandon() {
	if !s.ended.Load() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = s.conn.Send(ctx, &transport.Message{Kind: transport.Cancel, ID: s.id})
	}
	_ = s.conn.Close()
}

// Close ends the stream; one that has not ended is cancelled at the server. It is safe to call twice, and while Send or
// Recv wait.
func (s *Stream) Close() error {
	s.closeOnce.Do(func() {
		clean := s.ended.Load() && !s.leaving
		if clean {
			clean = s.finish() == nil
		}
		if s.unhook() { // the context has not ended: the connection is ours
			if clean {
				s.client.pool.put(s.client.others.address(&s.node), s.conn)
			} else {
				s.abandon()
			}
		}
		s.cancel()
	})
	return nil
}

// finish sends our End where it has not been sent, so that the server has seen both and the connection is free.
func (s *Stream) finish() error {
	if s.sent.Swap(true) {
		return nil
	}
	return s.conn.Send(s.ctx, &transport.Message{Kind: transport.End, ID: s.id})
}
