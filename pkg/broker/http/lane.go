package http

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/internal/delivery"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// How a lane sends.
const (
	quick      = 2                    // batches that may be under way while their answers come soon: more would be smaller ones
	slowAnswer = 2 * time.Millisecond // an answer that takes longer is slow, and its batch holds up no further one
	flights    = 256                  // batches that may be under way in all
	maxQueued  = 64 << 20             // bytes that wait beyond which no message more is taken
	laneIdle   = 60 * time.Second     // after which a lane without messages is given up, and its connection closed
)

// lane is the way to one subscriber: a connection, and what waits to go over it. Messages that are published while its
// calls are under way go together in the next one.
type lane struct {
	b    *Broker
	node registry.Node
	head metadata.MD // of its calls

	dialing chan struct{} // held by who connects

	mu     sync.Mutex
	line   *line
	ready  []*feed // with segments to send, and none under way: so that the segments of a feed arrive in order
	queued int     // bytes of the segments in all feeds
	young  []*load // under way, and not slow yet
	away   int     // batches under way
	timer  *time.Timer
	armed  bool
	used   time.Time
	closed bool
}

// line is an open connection.
type line struct {
	transport.Caller
	close func() error
}

// feed is what one Publish sends over a lane. Its fields are guarded by the lane's mu until done is closed.
type feed struct {
	segs     []segment
	kept     *atomic.Bool
	next     int // the first segment that has not been sent
	from     int // the number of that segment's first message
	known    int // messages that have an outcome
	size     int // bytes of all segments
	messages int
	deadline time.Time
	left     bool               // nobody waits for it any more
	outcomes []delivery.Outcome // nil as long as all acknowledged
	done     chan struct{}
}

// load is a batch under way: segments of one or more feeds.
type load struct {
	body   []byte
	room   *[]byte // what body lies in, where it is not the only segment's own
	parts  []part
	count  int
	called time.Time
}

type part struct {
	feed     *feed
	first, n int // of the feed's messages
}

func (b *Broker) newLane(n registry.Node) *lane {
	head := metadata.Of(mdSubscription, n.ID, mdContentType, contentBatch)
	l := &lane{b: b, node: n, head: head, dialing: make(chan struct{}, 1), used: time.Now()}
	l.timer = time.AfterFunc(time.Hour, l.overdue)
	l.timer.Stop()
	return l
}

// send delivers the messages of segs and gives what became of each; nil where all were acknowledged. It is not ok where the
// lane has been given up. kept is set where segs may still be read after it.
func (l *lane) send(ctx context.Context, segs []segment, kept *atomic.Bool) (outs []delivery.Outcome, ok bool) {
	f := &feed{segs: segs, kept: kept, done: make(chan struct{})}
	for _, s := range segs {
		f.messages, f.size = f.messages+s.count, f.size+len(s.data)
	}
	f.deadline, _ = ctx.Deadline() // there is one: see Gate.Enter
	l.mu.Lock()
	if closed := l.closed; closed || l.queued > maxQueued {
		l.mu.Unlock()
		full := fmt.Errorf("%w: %d MiB wait to be sent to it", broker.ErrBusy, maxQueued>>20)
		return delivery.All(delivery.Outcome{Refused: true, Err: full}, f.messages), !closed
	}
	l.queued += f.size
	l.ready = append(l.ready, f)
	ld := l.take()
	l.mu.Unlock()
	switch {
	case ld == nil:
	case len(ld.parts) == 1 && ld.parts[0].feed == f:
		l.transmit(ctx, ld) // nobody else waits for it
	default:
		l.b.sending.Go(func() { l.transmit(context.Background(), ld) })
	}
	select {
	case <-f.done:
	case <-ctx.Done():
		l.leave(ctx, f)
	}
	return f.outcomes, true
}

// leave ends the waiting for f. What has not been sent of it is not sent.
func (l *lane) leave(ctx context.Context, f *feed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-f.done:
		return
	default:
	}
	outs := f.result()
	spread(outs[f.known:f.from], delivery.Outcome{Err: l.noAnswer(context.Cause(ctx))})
	spread(outs[f.from:], delivery.Outcome{Refused: true, Err: fmt.Errorf("broker: not sent: %w", context.Cause(ctx))})
	f.kept.Store(true)
	f.left = true // what comes later does not change what the publisher reads
	l.finish(f)
}

func spread(outs []delivery.Outcome, out delivery.Outcome) {
	for i := range outs {
		outs[i] = out
	}
}

func (l *lane) noAnswer(err error) error {
	return fmt.Errorf("broker: no answer from %s, which may have handled the message: %w", l.node.Address, err)
}

// take makes the next batch, or nil where none can go now. mu is held.
func (l *lane) take() *load {
	for len(l.ready) > 0 && l.ready[0].left {
		l.ready = l.ready[1:]
	}
	if len(l.ready) == 0 || len(l.young) >= quick || l.away >= flights || l.closed {
		if len(l.ready) > 0 && len(l.young) >= quick && !l.armed {
			l.armed = true
			l.timer.Reset(slowAnswer)
		}
		return nil
	}
	ld := &load{called: time.Now()}
	for len(l.ready) > 0 && (l.ready[0].left || ld.fits(l.ready[0].segs[l.ready[0].next])) {
		f := l.ready[0]
		if l.ready = l.ready[1:]; !f.left {
			ld.add(f)
		}
	}
	l.young = append(l.young, ld)
	l.away++
	return ld
}

// keep notes that the connection may still read the batch.
func (ld *load) keep() {
	if ld.room != nil {
		ld.room = nil
		return
	}
	for _, p := range ld.parts {
		p.feed.kept.Store(true)
	}
}

// fits reports whether s may go with the batch. The first always may.
func (ld *load) fits(s segment) bool {
	return ld.count == 0 || len(ld.body)+len(s.data) <= batchBytes && ld.count+s.count <= batchMessages
}

// add takes the next segments of f into the batch.
func (ld *load) add(f *feed) {
	p := part{feed: f, first: f.from}
	for f.next < len(f.segs) && ld.fits(f.segs[f.next]) {
		s := f.segs[f.next]
		if ld.count == 0 {
			ld.body = s.data // not copied unless another follows
		} else {
			ld.join(s)
		}
		f.next++
		f.from, p.n, ld.count = f.from+s.count, p.n+s.count, ld.count+s.count
	}
	ld.parts = append(ld.parts, p)
}

// join puts s behind what is there.
func (ld *load) join(s segment) {
	if ld.room == nil {
		ld.room = rooms.Get().(*[]byte)
		*ld.room = append(slices.Grow((*ld.room)[:0], batchBytes), ld.body...)
	}
	*ld.room = append(*ld.room, s.data...)
	ld.body = *ld.room
}

// release lets the storage be used again that the batch was put together in. Its call is over.
func (ld *load) release() {
	if ld.room != nil {
		giveRoom(ld.room)
		ld.room = nil
	}
}

// transmit sends ld, and what is ready when its answer has come.
func (l *lane) transmit(ctx context.Context, ld *load) {
	for alone := ctx; ld != nil; ctx = context.Background() {
		outs := l.call(ctx, ld)
		ld.release()
		l.mu.Lock()
		l.settle(ld, outs)
		ld = l.take()
		l.mu.Unlock()
		if ld != nil && alone.Done() != nil { // a publisher's own goroutine: its Publish is over
			l.b.sending.Go(func() { l.transmit(context.Background(), ld) })
			return
		}
	}
}

// settle gives the outcomes of a batch to its feeds; nil is that all were acknowledged. mu is held.
func (l *lane) settle(ld *load, outs []delivery.Outcome) {
	l.away--
	for i, y := range l.young {
		if y == ld {
			l.young = append(l.young[:i], l.young[i+1:]...)
			break
		}
	}
	for _, p := range ld.parts {
		f := p.feed
		if outs != nil {
			if own := outs[:p.n]; !f.left {
				copy(f.result()[p.first:], own)
			}
			outs = outs[p.n:]
		}
		if f.left {
			continue
		}
		switch f.known = p.first + p.n; {
		case f.next < len(f.segs):
			l.ready = append(l.ready, f)
		default:
			l.finish(f)
		}
	}
}

// finish ends a feed. mu is held.
func (l *lane) finish(f *feed) {
	l.queued -= f.size
	l.used = time.Now()
	close(f.done)
}

// result gives the feed's outcomes, to be filled.
func (f *feed) result() []delivery.Outcome {
	if f.outcomes == nil {
		f.outcomes = make([]delivery.Outcome, f.messages)
	}
	return f.outcomes
}

// overdue is called when messages have waited for slow answers: those no longer hold up the next batch.
func (l *lane) overdue() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.armed = false
	now := time.Now()
	kept := l.young[:0]
	for _, ld := range l.young {
		if now.Sub(ld.called) < slowAnswer {
			kept = append(kept, ld)
		}
	}
	clear(l.young[len(kept):])
	l.young = kept
	for ld := l.take(); ld != nil; ld = l.take() {
		l.b.sending.Go(func() { l.transmit(context.Background(), ld) })
	}
}

// call sends a batch and reads the answer. A connection that had ended before it was noticed is replaced once.
func (l *lane) call(ctx context.Context, ld *load) []delivery.Outcome {
	req := transport.Message{Kind: transport.Call, Header: l.head, Body: ld.body}
	var latest time.Time
	for _, p := range ld.parts {
		if p.feed.deadline.After(latest) {
			latest = p.feed.deadline
		}
	}
	for again := false; ; again = true {
		c, fresh, err := l.connect(ctx)
		if err != nil {
			return delivery.All(unreached(l.node, err), ld.count)
		}
		var rsp transport.Message
		req.Lent = true // nobody changes it any more
		req.Timeout = max(time.Until(latest), time.Microsecond)
		err = c.Call(ctx, &req, &rsp)
		if req.Lent {
			ld.keep()
		}
		switch {
		case err == nil:
			return l.answered(&rsp, ld.count)
		case !transport.NotSent(err) && !errors.Is(err, transport.ErrTooLarge):
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return delivery.All(delivery.Outcome{Err: l.noAnswer(err)}, ld.count)
		case fresh || again || c.Usable() || ctx.Err() != nil:
			return delivery.All(unreached(l.node, err), ld.count)
		}
	}
}

// answered reads the reply to n messages.
func (l *lane) answered(rsp *transport.Message, n int) []delivery.Outcome {
	if text := rsp.Header.Get(mdError); text != "" {
		return delivery.All(judge(status.Parse(text)), n)
	}
	if rsp.Header.Get(mdAck) != l.node.ID {
		return delivery.All(stranger(l.node), n)
	}
	outs, err := decodeOutcomes(rsp.Body, n)
	if err != nil {
		return delivery.All(delivery.Outcome{Err: l.noAnswer(fmt.Errorf("its answer is malformed: %w", err))}, n)
	}
	return outs
}

// connect gives the lane's connection, and dials where there is none.
func (l *lane) connect(ctx context.Context) (c *line, fresh bool, err error) {
	if c := l.current(); c != nil {
		return c, false, nil
	}
	select {
	case l.dialing <- struct{}{}:
		defer func() { <-l.dialing }()
	case <-ctx.Done():
		return nil, false, context.Cause(ctx)
	}
	if c := l.current(); c != nil {
		return c, false, nil
	}
	if err := registry.ValidHostPort(l.node.Address); err != nil {
		return nil, false, err
	}
	conn, err := l.b.transport.Dial(ctx, l.node.Address)
	if err != nil {
		return nil, false, err
	}
	c = newLine(conn)
	l.mu.Lock()
	old := l.line
	closed := l.closed
	l.line = c
	l.mu.Unlock()
	if old != nil {
		_ = old.close() // it has ended
	}
	if closed {
		_ = c.close() // nothing was sent on it
		return nil, false, broker.ErrClosed
	}
	return c, true, nil
}

func newLine(conn transport.Conn) *line {
	if c, ok := conn.(transport.Caller); ok {
		return &line{Caller: c, close: conn.Close}
	}
	m := transport.NewCaller(conn)
	return &line{Caller: m, close: m.Close}
}

// current gives the connection, if it takes calls.
func (l *lane) current() *line {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.line == nil || !l.line.Usable() {
		return nil
	}
	return l.line
}

// close ends the connection, and with it the calls on it.
func (l *lane) close() {
	l.mu.Lock()
	l.closed = true
	l.timer.Stop()
	c := l.line
	l.mu.Unlock()
	if c != nil {
		_ = c.close() // whoever waits for an answer is told
	}
}

// laneKey tells lanes apart: a subscription that has come back at another address has another one.
type laneKey struct{ id, address string }

// lane gives the way to n.
func (b *Broker) lane(n registry.Node) *lane {
	b.guard.Lock()
	defer b.guard.Unlock()
	key := laneKey{n.ID, n.Address}
	l := b.lanes[key]
	if l == nil {
		l = b.newLane(n)
		b.lanes[key] = l
		if len(b.lanes) == 1 {
			b.sweeping.Reset(laneIdle)
		}
	}
	return l
}

// sweep gives up the lanes that nothing was sent on for a while.
func (b *Broker) sweep() {
	b.guard.Lock()
	now := time.Now()
	var idle []*lane
	for key, l := range b.lanes {
		if l.idle(now) {
			delete(b.lanes, key)
			idle = append(idle, l)
		}
	}
	if len(b.lanes) > 0 {
		b.sweeping.Reset(laneIdle)
	}
	b.guard.Unlock()
	for _, l := range idle {
		l.close()
	}
}

// closeLanes ends all lanes, and waits for what they had under way. No Publish is under way.
func (b *Broker) closeLanes() {
	b.guard.Lock()
	lanes := b.lanes
	b.lanes = map[laneKey]*lane{}
	b.sweeping.Stop()
	b.guard.Unlock()
	for _, l := range lanes {
		l.close()
	}
	b.sending.Wait()
}

// idle reports whether nothing was sent for a while. From then on the lane is closed.
func (l *lane) idle(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = l.closed || l.queued == 0 && l.away == 0 && now.Sub(l.used) > laneIdle
	return l.closed
}
