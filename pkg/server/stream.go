package server

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// sendTimeout is how long a stream's message waits for a peer that does not read.
const sendTimeout = 10 * time.Second

// probeInterval is how often a peer is looked for whose messages are not being read.
const probeInterval = time.Second

// stream is the pipe of a stream.
type stream struct {
	*conversation
	id       uint32
	ctx      context.Context // ends with the handler, too
	cancel   func()
	returned atomic.Bool // the handler has

	in      *inbox
	full    atomic.Bool // the reader of the connection waits for the handler
	probing bool        // of the reader of the connection
}

// open runs a stream's handler on a goroutine of its own.
func (c *conversation) open(m *transport.Message) {
	s := &stream{conversation: c, id: m.ID, in: newInbox()}
	s.ctx, s.cancel = c.begin(m, false)
	c.stream = s
	c.busy.Add(1)
	c.work.Go(func() {
		defer c.busy.Add(-1)
		header := metadata.MD(nil)
		if err := s.serve(m); err != nil {
			header = failure(c.name, nil, c.public(err, m.Header))
		}
		s.in.end(nil)
		s.cancel()
		s.returned.Store(true) // before End: whoever reads that may open the next stream at once
		// Where this fails the connection has, and its reader tells of that.
		_ = c.conn.Send(c.ctx, &transport.Message{Kind: transport.End, ID: m.ID, Header: header})
	})
}

func (s *stream) serve(m *transport.Message) error {
	c, ep, err := s.route(s.conn.RemoteAddr(), m, s)
	if err != nil {
		return err
	}
	if ep.Kind == Unary {
		return status.New(status.Unimplemented, "%s is no stream: call it", ep.Name)
	}
	if err := s.streams.enter(); err != nil {
		return err
	}
	defer s.streams.leave()
	// The client waits for this: until then it may go to another node.
	if err := s.conn.Send(s.ctx, &transport.Message{Kind: transport.Opened, ID: s.id}); err != nil {
		return status.Wrap(err, status.Canceled, "the caller went away")
	}
	return s.run(s.ctx, c, ep.handler, &ep.stats)
}

// put takes a message for the handler. It waits while the inbox is full: the peer then feels it.
func (s *stream) put(m *transport.Message) {
	if m.Kind == transport.End {
		s.in.end(nil)
		return
	}
	s.in.put(s.ctx, m, s.startProbing)
	s.full.Store(false)
}

// startProbing has the peer looked for while the connection is not read: its Cancel, or the end of the connection, stands
// behind the messages for which there is no room, so that only a failing write tells that it has left.
func (s *stream) startProbing() {
	s.full.Store(true)
	if s.probing {
		return
	}
	s.probing = true
	s.work.Go(func() {
		tick := time.NewTicker(probeInterval)
		defer tick.Stop()
		for {
			select {
			case <-s.ctx.Done():
				return
			case <-tick.C:
			}
			// A Pong that nobody asked for is read and forgotten by any peer.
			if s.full.Load() && s.conn.Send(s.conversation.ctx, &transport.Message{Kind: transport.Pong}) != nil {
				_ = s.conn.Close()
				s.cancel()
				return
			}
		}
	})
}

// fail ends the stream from the peer's side.
func (s *stream) fail(err error) {
	s.in.end(status.Wrap(err, status.Canceled, "the caller went away"))
	s.cancel()
}

func (s *stream) recv() ([]byte, error) {
	m, err := s.in.get(s.ctx)
	if err != nil {
		return nil, err
	}
	return m.Body, nil
}

func (s *stream) send(contentType string, body []byte) error {
	ctx, cancel := context.WithTimeout(s.ctx, sendTimeout)
	defer cancel()
	m := &transport.Message{Kind: transport.Data, ID: s.id, Body: body}
	if contentType != "" {
		header, err := m.Header.Set(transport.HeaderContentType, contentType)
		if err != nil {
			return err
		}
		m.Header = header
	}
	err := s.conn.Send(ctx, m)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, transport.ErrTooLarge):
		return status.Wrap(err, status.TooLarge, "a message of the stream is too large: %v", err)
	case s.ctx.Err() != nil:
		return s.ctx.Err()
	case errors.Is(err, context.DeadlineExceeded):
		s.cancel()
		return status.Wrap(err, status.Unavailable, "the caller has not read for %v", sendTimeout)
	}
	return status.Wrap(err, status.Canceled, "the caller went away")
}

func (s *stream) setHeader(string, string) error {
	return status.New(status.Unimplemented, "a stream has no header of its own")
}
