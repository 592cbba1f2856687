package server

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cb02dfca/micro/internal/callctx"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// sendTimeout is how long a stream's message waits at most for a peer that does not read; it may be a tenth less.
const sendTimeout = 10 * time.Second

// probeInterval is how often a peer is looked for whose messages are not being read.
const probeInterval = time.Second

// keepStorage is the largest body, in bytes, whose storage is kept for the next message.
const keepStorage = 256 << 10

// stream is the pipe of a stream.
type stream struct {
	*conversation
	id       uint32
	ctx      *callctx.Context // ends with the handler, too
	returned atomic.Bool      // the handler has

	in      *inbox
	full    atomic.Bool // the reader of the connection waits for the handler
	probing bool        // of the reader of the connection

	out   transport.Message // what is being sent; of the one who sends
	body  []byte            // storage for the next encoded message, likewise
	watch sendWatch

	wrapped *wrapped // the envelope of its messages; nil where they have none
}

// open runs a stream's handler on a goroutine of its own.
func (c *conversation) open(m *transport.Message) {
	s := &stream{conversation: c, id: m.ID, in: newInbox(), ctx: c.begin(m, m.Timeout)}
	s.out = transport.Message{Kind: transport.Data, ID: s.id}
	s.watch.late = s.cancel
	rt := c.streamRoute(m.Header)
	var err error
	if s.wrapped, err = rt.wrap(m); err != nil {
		rt.breaks(err)
	}
	c.stream = s
	c.busy.Add(1)
	c.work.Go(func() {
		defer c.busy.Add(-1)
		header := metadata.MD(nil)
		if err := s.serve(rt); err != nil {
			header = failure(c.name, nil, rt.public(err))
		}
		s.in.end(nil)
		s.watch.stop()
		c.finish(s.id, s.ctx)
		s.returned.Store(true) // before End: whoever reads that may open the next stream at once
		end := &transport.Message{Kind: transport.End, ID: s.id, Header: header}
		if s.wrapped != nil { // go-micro's clients read no header where the message is not in the envelope, too
			end.Header, end.Body = append(end.Header, rt.reply...), s.wrapped.message(nil)
		}
		// Where this fails the connection has, and its reader tells of that.
		_ = c.conn.Send(c.ctx, end)
	})
}

func (s *stream) cancel() { s.ctx.End(context.Canceled) }

func (s *stream) serve(rt *route) error {
	if err := rt.refuses(0); err != nil { // the body of an Open is ignored
		return err
	}
	if err := rt.gate.enter(); err != nil {
		return err
	}
	defer rt.gate.leave()
	// The client waits for this: until then it may go to another node.
	if err := s.conn.Send(s.ctx, &transport.Message{Kind: transport.Opened, ID: s.id}); err != nil {
		return status.Wrap(err, status.Canceled, "the caller went away")
	}
	c := &Call{route: rt, ctx: s.ctx, pipe: s}
	return rt.run(s.ctx, c, rt.endpoint.handler, &rt.endpoint.stats, true)
}

// put takes a message for the handler, and reports whether it is kept. It waits while the inbox is full: the peer then
// feels it.
func (s *stream) put(m *transport.Message) bool {
	if m.Kind == transport.End {
		if failed, ok := m.Header.Bytes(transport.HeaderError); ok && len(failed) > 0 {
			e := status.Parse(string(failed))
			s.in.end(&status.Error{ID: e.ID, Code: e.Code, Detail: e.Detail, Details: e.Details}) // the caller's own, and no other service's
		} else {
			s.in.end(nil)
		}
		return false
	}
	s.in.put(s.ctx, m, s.startProbing)
	s.full.Store(false)
	return true
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
	if s.wrapped != nil {
		return s.wrapped.value(m.Body)
	}
	return m.Body, nil
}

func (s *stream) send(c *Call, v any) error {
	body, err := c.encode(s.body[:0], v)
	if err != nil {
		return err
	}
	s.out.Give = true // the storage is the stream's
	err = s.transmit(c, c.route.codec.ContentType(), body)
	if s.body = s.out.Body; cap(s.body) > keepStorage {
		s.body = nil
	}
	s.out.Body = nil
	return err
}

func (s *stream) sendRaw(c *Call, contentType string, body []byte) error {
	s.out.Give = false
	err := s.transmit(c, contentType, body)
	s.out.Body = nil
	return err
}

// transmit sends a message, and waits as long as the peer may take.
func (s *stream) transmit(c *Call, contentType string, body []byte) error {
	s.out.Body, s.out.Header = body, c.route.reply
	if contentType != c.route.codec.ContentType() || len(c.route.reply) == 0 {
		header, err := metadata.MD(nil).Set(transport.HeaderContentType, contentType)
		if err != nil {
			return err
		}
		s.out.Header = header
	} else if s.wrapped != nil {
		s.out.Body, s.out.Give = s.wrapped.message(body), false
	}
	s.watch.begin()
	err := s.conn.Send(s.ctx, &s.out)
	late := s.watch.end()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, transport.ErrTooLarge):
		return status.Wrap(err, status.TooLarge, "a message of the stream is too large: %v", err)
	case late:
		return status.Wrap(err, status.Unavailable, "the caller has not read for %v", sendTimeout)
	case s.ctx.Err() != nil:
		return s.ctx.Err()
	}
	return status.Wrap(err, status.Canceled, "the caller went away")
}

func (s *stream) setHeader(string, string) error {
	return status.New(status.Unimplemented, "a stream has no header of its own")
}

// sendWatch ends a stream of which a message waits for sendTimeout. It looks at the stream sendLooks times in that time, as long
// as messages go out: a timer for each message, or but a look at the clock, would cost as much as a good part of sending it.
type sendWatch struct {
	late  func()        // ends the stream
	sends atomic.Uint64 // begun and ended ones: odd while one is under way
	armed atomic.Bool   // the timer runs
	fired atomic.Bool   // late was called

	seen  uint64 // sends at the last look; of look
	looks int    // how often seen was the same, likewise

	mu      sync.Mutex
	timer   *time.Timer
	stopped bool
}

// sendLooks is how often a waiting message is looked at before it has waited too long.
const sendLooks = 10

// begin is called before a Send.
func (w *sendWatch) begin() {
	w.sends.Add(1)
	if !w.armed.Load() {
		w.arm()
	}
}

// end is called after it, and reports whether it took too long.
func (w *sendWatch) end() bool {
	w.sends.Add(1)
	return w.fired.Load()
}

func (w *sendWatch) arm() {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.stopped:
		return
	case w.timer == nil:
		w.timer = time.AfterFunc(sendTimeout/sendLooks, w.look)
	default:
		w.timer.Reset(sendTimeout / sendLooks)
	}
	w.armed.Store(true)
}

// look runs when the timer fires.
func (w *sendWatch) look() {
	n := w.sends.Load()
	switch {
	case n != w.seen:
		w.seen, w.looks = n, 1
	case n%2 == 0: // nothing was sent since the last look: the next Send arms the timer
		w.armed.Store(false)
		if w.sends.Load() == n {
			return
		}
	default:
		if w.looks++; w.looks == sendLooks {
			w.fired.Store(true)
			w.late()
			return
		}
	}
	w.arm()
}

// stop ends the watch.
func (w *sendWatch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	if w.timer != nil {
		w.timer.Stop()
	}
}
