package natsconn

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"
)

// errBroke is why a Publish does not know what became of its messages.
var errBroke = errors.New("the connection broke before the server confirmed: it may have taken what was sent, or not")

// Subscription is a subscription of a Conn, for as long as that lives: it stands again with each further connection.
type Subscription struct {
	c              *Conn
	subject, queue string
	handle         nats.MsgHandler
	limit          int // bytes

	mu     sync.Mutex
	sub    *nats.Subscription
	closed bool
}

// Subscribe has handle called with what is published to subject from now on, one message at a time; with a queue, with what falls to
// this member. When it returns the server has the subscription. Up to limit bytes wait for handle; what comes beyond is dropped, and
// Options.Failed told, with nats.ErrSlowConsumer. The errors are those of Publish.
func (c *Conn) Subscribe(ctx context.Context, subject, queue string, limit int, handle nats.MsgHandler) (*Subscription, error) {
	nc, err := c.Get(ctx)
	if err != nil {
		return nil, err
	}
	d := c.watch(subject)
	defer c.unwatch(d)
	s := &Subscription{c: c, subject: subject, queue: queue, handle: handle, limit: limit}
	c.mu.Lock()
	c.subs[s] = struct{}{}
	c.mu.Unlock()
	if err = s.stand(nc); err == nil {
		err = c.confirm(ctx, nc, nc.Stats().Reconnects, d)
	}
	if err != nil {
		s.Close()
		return nil, c.Error(err)
	}
	return s, nil
}

// stand makes the subscription at nc.
func (s *Subscription) stand(nc *nats.Conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	sub, err := nc.QueueSubscribe(s.subject, s.queue, s.handle)
	if err != nil {
		return err
	}
	s.sub = sub
	return sub.SetPendingLimits(-1, s.limit)
}

// Waiting gives how many messages wait for handle, and Dropped how many were dropped.
func (s *Subscription) Waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, _, _ := s.sub.Pending() // of one that is closed: none
	return n
}

// Dropped gives how many messages were dropped at the present connection.
func (s *Subscription) Dropped() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, _ := s.sub.Dropped()
	return n
}

// Close ends the subscription. What waits for handle is dropped, and handle may run once more.
func (s *Subscription) Close() {
	s.forget()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed && s.sub != nil {
		_ = s.sub.Unsubscribe() // it fails where the connection is closed
	}
	s.closed = true
}

// Drain ends the subscription at the server, waits until handle has had what came until then, and closes it. ctx bounds it.
func (s *Subscription) Drain(ctx context.Context) {
	defer s.Close()
	s.mu.Lock()
	sub, over := s.sub, make(chan struct{})
	if s.closed || sub == nil {
		s.mu.Unlock()
		return
	}
	sub.SetClosedHandler(func(string) { close(over) })
	err := sub.Drain()
	s.mu.Unlock()
	if err != nil {
		return
	}
	select {
	case <-over:
	case <-ctx.Done():
	}
}

func (s *Subscription) forget() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	delete(s.c.subs, s)
}

// Publish hands messages to the server, in their order, and returns when it has confirmed that it has them all: the answer to a PING that
// follows them, on the same connection. An error means that it has none of them, or that it is not known. A server that
// takes them gives them to those who subscribe now, and keeps nothing.
//
// ctx bounds it, and Options.Timeout.
func (c *Conn) Publish(ctx context.Context, msgs ...*nats.Msg) error {
	nc, err := c.Get(ctx)
	if err != nil {
		return err
	}
	for _, m := range msgs {
		if limit := nc.MaxPayload(); int64(len(m.Data)) > limit {
			return c.Error(fmt.Errorf("%w: a message of %d bytes, and the server takes %d: set its max_payload", nats.ErrMaxPayload, len(m.Data), limit))
		}
	}
	d := c.watch(subjects(msgs)...)
	defer c.unwatch(d)
	before := nc.Stats().Reconnects
	for i, m := range msgs {
		if err := nc.PublishMsg(m); err != nil {
			if i > 0 {
				err = fmt.Errorf("%w (%w)", errBroke, err)
			}
			return c.Error(err)
		}
	}
	return c.Error(c.confirm(ctx, nc, before, d))
}

// confirm waits until the server has taken what was sent on nc since it had reconnected before times.
func (c *Conn) confirm(ctx context.Context, nc *nats.Conn, before uint64, d *denial) error {
	bounded, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	f := c.flush(nc)
	select {
	case <-f.done:
	case <-bounded.Done():
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("%w (%w)", errBroke, bounded.Err())
	}
	switch {
	case f.err != nil:
		return fmt.Errorf("%w (%w)", errBroke, f.err)
	case f.after != before: // the answer is another connection's
		return errBroke
	}
	return c.verdict(bounded, nc, d)
}

// flush is a PING, and its answer, for all who wait for one.
type flush struct {
	nc    *nats.Conn
	done  chan struct{}
	err   error
	after uint64 // how often nc had reconnected when the answer came
}

// flush gives a flush that has not begun: what was sent before is confirmed by it. One is under way at a time, and those who come
// meanwhile share the next.
func (c *Conn) flush(nc *nats.Conn) *flush {
	c.flushing.Lock()
	defer c.flushing.Unlock()
	if c.next == nil || c.next.nc != nc {
		f := &flush{nc: nc, done: make(chan struct{})}
		if c.next != nil { // nats.go gave its connection up
			go c.run(f)
			return f
		}
		if c.next = f; !c.flows {
			c.flows = true
			go c.flow()
		}
	}
	return c.next
}

// flow runs one flush after the other, as long as there are any.
func (c *Conn) flow() {
	for {
		c.flushing.Lock()
		f := c.next
		c.next, c.flows = nil, f != nil
		c.flushing.Unlock()
		if f == nil {
			return
		}
		c.run(f)
	}
}

func (c *Conn) run(f *flush) {
	f.err = f.nc.FlushTimeout(c.o.Timeout)
	f.after = f.nc.Stats().Reconnects
	close(f.done)
}

// denial is told of the subjects that somebody wants to use and may not: a server that forbids says so, and goes on.
type denial struct {
	subjects map[string]bool
	err      chan error // of one element
}

// Denied gives a channel that gets an error when NATS forbids to publish or subscribe to one of subjects. stop ends it.
func (c *Conn) Denied(subjects ...string) (denied <-chan error, stop func()) {
	d := c.watch(subjects...)
	return d.err, func() { c.unwatch(d) }
}

func (c *Conn) watch(subjects ...string) *denial {
	d := &denial{subjects: map[string]bool{}, err: make(chan error, 1)}
	for _, s := range subjects {
		d.subjects[s] = true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.denied[d] = struct{}{}
	return d
}

func (c *Conn) unwatch(d *denial) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.denied, d)
}

func subjects(msgs []*nats.Msg) []string {
	all := make([]string, len(msgs))
	for i, m := range msgs {
		all[i] = m.Subject
	}
	return all
}

// verdict tells whether one of d's subjects was forbidden. That was said before the PING was answered; but it comes here by
// another goroutine, which may be late.
func (c *Conn) verdict(ctx context.Context, nc *nats.Conn, d *denial) error {
	last := nc.LastError()
	if !errors.Is(last, nats.ErrPermissionViolation) {
		return nil
	}
	for {
		c.mu.Lock()
		known, change := c.noticed == last, c.change
		c.mu.Unlock()
		select {
		case err := <-d.err:
			return err
		default:
		}
		if known {
			return nil
		}
		select {
		case <-change:
		case <-ctx.Done():
			return fmt.Errorf("%w (%w)", errBroke, last)
		}
		if now := nc.LastError(); now != last {
			return c.verdict(ctx, nc, d)
		}
	}
}

// deniedSubject gives the subject that an error says may not be published to, or be subscribed to.
func deniedSubject(err error) (string, bool) {
	_, rest, ok := strings.Cut(err.Error(), ` to "`)
	if !ok {
		return "", false
	}
	subject, _, ok := strings.Cut(rest, `"`)
	return subject, ok
}
