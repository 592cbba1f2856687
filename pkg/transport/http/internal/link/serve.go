package link

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cb02dfca/micro/internal/callctx"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/internal/drain"
	"github.com/cb02dfca/micro/pkg/transport/internal/frame"
)

const (
	// heldTime is how long the answers of handlers that ran one after the other may take to gather before they are written.
	heldTime = 100 * time.Microsecond
	// maxUnsent is how many answers may wait for a peer that does not read them, before no more of its calls are read.
	maxUnsent = 64
)

// serving is one ServeCalls. One goroutine at a time reads; it runs the handlers that are fast. A handler that is not
// loses the reading to a new goroutine, and sends its answer by itself, as those do that have a goroutine from the beginning.
type serving struct {
	*Conn
	route transport.Router
	ctx   context.Context // of the calls: ends with the serving
	end   context.CancelFunc

	// Of the goroutine that reads.
	memo    memo
	slab    callctx.Slab
	now     int64 // about; deadlines count from it
	calls   uint32
	batched bool          // a batch has begun
	open    bool          // and calls may begin in it
	leads   bool          // the answers of the batch wait for flush
	cost    time.Duration // what they took
	desk    *desk         // during a batch
	ticket  *ticket       // made when an answer has to wait for room

	// turn is odd while a handler runs on the goroutine that reads. Whoever makes it even, that goroutine or the monitor, has
	// the reading from then on.
	turn    atomic.Uint64
	seen    uint64        // turn at the monitor's last look
	watched atomic.Bool   // the monitor looks
	met     atomic.Uint64 // the turn that the monitor met last
	metAt   atomic.Int64  // when

	unsent atomic.Int32  // answers that goroutines are about to send
	room   chan struct{} // a hint: unsent has become less

	mu      sync.Mutex
	running atomic.Int32 // calls on goroutines of their own
	active  map[uint32]*callctx.Context
	work    sync.WaitGroup // them, and the goroutines that read

	done chan struct{}
	err  error // how it ended; read after done
}

// desk is what a goroutine needs to run calls, one at a time.
type desk struct {
	s        *serving
	route    *transport.Route
	ctx      *callctx.Context
	id       uint32
	req, rsp transport.Message
	buf      *[]byte // in which req lies, for one that has lost the reading
}

// leave gives a desk back.
func (d *desk) leave(b *Buffers) {
	req, rsp := d.req.Body, d.rsp
	*d = desk{}
	d.req.Body, d.rsp.Body, d.rsp.Header = req[:0], rsp.Body[:0], rsp.Header[:0]
	b.desks.Put(d)
}

// ServeCalls implements transport.UnaryServer.
func (c *Conn) ServeCalls(ctx context.Context, route transport.Router) error {
	s := &serving{Conn: c, route: route, room: make(chan struct{}, 1), done: make(chan struct{})}
	s.ctx, s.end = context.WithCancel(ctx)
	defer s.end()
	stop := context.AfterFunc(ctx, c.in.interrupt)
	s.now = callctx.Now()
	s.read()
	<-s.done
	s.end()
	s.work.Wait()
	if stop() || s.err != nil {
		return s.err
	}
	return ctx.Err()
}

// read reads and runs calls until the serving ends, or until a handler has lost the reading.
func (s *serving) read() {
	for {
		m, failed, err := s.in.next()
		switch {
		case err != nil:
			s.finish(s.Conn.fail(fmt.Errorf("transport/http: from %s: %w", s.RemoteAddr(), err)))
			return
		case m == nil:
			s.settle()
			if err := s.fill(); err != nil {
				s.finish(err)
				return
			}
			continue
		}
		if !s.batched {
			s.batched, s.open, s.cost = true, s.tracker.Hold(), 0
			s.desk = s.o.Buffers.desks.Get().(*desk)
		}
		if on, ours := s.take(m, failed); !ours {
			return
		} else if !on {
			s.settle()
			s.finish(nil)
			return
		}
	}
}

// fill waits for bytes.
func (s *serving) fill() error {
	for {
		err := s.in.fill(context.Background())
		s.now = callctx.Now()
		if !errors.Is(err, errInterrupted) {
			return err
		}
		if err := s.ctx.Err(); err != nil {
			return err
		}
	}
}

// settle writes the answers of a batch, and ends it.
func (s *serving) settle() {
	s.flush()
	if s.batched {
		s.batched = false
		s.desk.leave(s.o.Buffers)
		s.desk = nil
		s.tracker.Release()
	}
}

// flush writes the answers that were held back.
func (s *serving) flush() {
	s.cost = 0
	if s.leads {
		s.leads = false
		s.w.flush(false)
	}
}

// finish ends the serving, for the goroutine that reads.
func (s *serving) finish(err error) {
	if s.isClosed() && err == nil {
		err = s.Conn.err
	}
	s.err = err
	s.settle()
	s.end()
	close(s.done)
}

// take deals with one message. on is false where it is of a stream, which ends the serving; ours where a handler has lost the reading.
func (s *serving) take(m *transport.Message, failed error) (on, ours bool) {
	switch m.Kind {
	case transport.Call:
		return true, s.call(m, failed)
	case transport.Cancel:
		s.mu.Lock()
		if ctx := s.active[m.ID]; ctx != nil {
			ctx.End(context.Canceled)
		}
		s.mu.Unlock()
	case transport.Ping:
		s.hold(&transport.Message{Kind: transport.Pong, ID: m.ID})
	case transport.Pong:
	case transport.Open:
		s.in.putBack(m, failed)
		return false, true
	default:
		if s.tracker.Received(m.Kind, m.ID) == drain.Broken {
			_ = s.misfit(m) // the next read tells
		}
	}
	return true, true
}

// call runs a call, here or on a goroutine of its own. It reports whether the caller still reads.
func (s *serving) call(m *transport.Message, failed error) bool {
	if s.running.Load() > 0 && s.isActive(m.ID) {
		_ = s.misfit(m) // the next read tells
		return true
	}
	switch {
	case failed != nil:
		s.hold(s.tooLarge(m))
		return true
	case !s.open:
		s.hold(drain.Refusal(m.Kind, m.ID))
		return true
	}
	route, own, caller, err := s.memo.find(m.Header, s.route)
	if err != nil {
		_ = s.Conn.fail(fmt.Errorf("transport/http: from %s: %w", s.RemoteAddr(), err))
		return true
	}
	ctx := s.slab.New(s.ctx, s.deadline(route, m.Timeout), caller)
	if !route.Pace.Inline() {
		s.detach(m, route, own, ctx)
		return true
	}
	d := s.desk
	d.s, d.route, d.ctx, d.id = s, route, ctx, m.ID
	d.req.Kind, d.req.ID, d.req.Timeout, d.req.Header, d.req.Body = m.Kind, m.ID, m.Timeout, own, m.Body
	return s.run(d)
}

// deadline is when a call's time is over.
func (s *serving) deadline(route *transport.Route, asked time.Duration) int64 {
	if route.Timeout != nil {
		asked = route.Timeout(asked)
	}
	if asked <= 0 || int64(asked) > never-s.now {
		return never
	}
	return s.now + int64(asked)
}

// run runs a call on the goroutine that reads, and reports whether that still does.
func (s *serving) run(d *desk) bool {
	s.calls++
	pace := d.route.Pace
	timed := pace.Timed(s.calls)
	if timed {
		s.now = callctx.Now()
	}
	d.rsp = transport.Message{Kind: transport.Reply, ID: d.id, Header: d.rsp.Header[:0], Body: d.rsp.Body[:0]}
	turn := s.turn.Load() + 1
	s.turn.Store(turn)
	if !s.watched.Load() {
		s.o.Monitor.add(s)
	}
	d.route.Serve(d.ctx, &d.req, &d.rsp)
	d.ctx.End(context.Canceled)
	d.req.Header, d.req.Body = nil, nil // they are the reader's
	if !s.turn.CompareAndSwap(turn, turn+1) {
		d.finish()
		return false
	}
	if timed {
		took := time.Duration(callctx.Now() - s.now)
		s.now += int64(took)
		pace.Ran(took, true)
	} else if s.met.Load() == turn {
		pace.Met(time.Duration(callctx.Now() - s.metAt.Load()))
	}
	s.hold(s.limited(&d.rsp))
	if s.cost += pace.Cost(); s.cost > heldTime {
		s.flush()
	}
	return true
}

// limited gives rsp, or what is answered in its place where that is too large.
func (s *serving) limited(rsp *transport.Message) *transport.Message {
	if len(rsp.Body) <= s.o.MaxMessage && len(rsp.Header) <= frame.MaxSection {
		return rsp
	}
	err := transport.Check(rsp, s.o.MaxMessage)
	return drain.Failure(transport.Call, rsp.ID, status.Wrap(err, status.TooLarge, "the answer is too large: %v", err))
}

// hold adds a message to those that leave with the batch.
func (s *serving) hold(m *transport.Message) {
	if len(m.Body) > frame.MaxBody {
		s.flush()
		_, _ = s.sendParts(patience{ctx: s.ctx}, m, alone) // where it fails the connection has: the next read tells
		return
	}
	h := head(m, len(m.Body), 0)
	for {
		_, lead, full, err := s.w.add(&h, m.Header, payload{data: m.Body, gift: &m.Body}, &s.w.whole, s.ticket, 0)
		s.leads = s.leads || lead
		if err != nil || !full {
			return
		}
		s.flush()
		if s.ticket == nil {
			s.ticket = newTicket()
		}
		if s.w.queue(&s.w.whole, s.ticket, frame.HeaderSize+len(m.Header)+len(m.Body), patience{ctx: s.ctx}) != nil {
			return
		}
	}
}

// detach gives a call a goroutine of its own.
func (s *serving) detach(m *transport.Message, route *transport.Route, own []byte, ctx *callctx.Context) {
	s.awaitRoom()
	d := s.o.Buffers.desks.Get().(*desk)
	d.s, d.route, d.ctx, d.id = s, route, ctx, m.ID
	d.req = transport.Message{Kind: m.Kind, ID: m.ID, Timeout: m.Timeout, Header: own, Body: d.req.Body[:0]}
	if s.in.lies(m) {
		d.req.Body = append(d.req.Body, m.Body...)
	} else {
		d.req.Body, m.Body = m.Body, d.req.Body
	}
	s.enter(d)
	go d.run()
}

// awaitRoom waits while many answers are waiting for the peer to read. That ends at the write timeout at the latest.
func (s *serving) awaitRoom() {
	if s.unsent.Load() < maxUnsent {
		return
	}
	s.flush()
	for s.unsent.Load() >= maxUnsent {
		select {
		case <-s.room:
		case <-s.closed:
			return
		}
	}
}

// run is the goroutine of a call.
func (d *desk) run() {
	s := d.s
	began := int64(0)
	timed := d.route.Pace != nil && d.route.Pace.Timed(d.id)
	if timed {
		began = callctx.Now()
	}
	d.rsp = transport.Message{Kind: transport.Reply, ID: d.id, Header: d.rsp.Header[:0], Body: d.rsp.Body[:0]}
	d.route.Serve(d.ctx, &d.req, &d.rsp)
	d.ctx.End(context.Canceled)
	if timed {
		d.route.Pace.Ran(time.Duration(callctx.Now()-began), false)
	}
	s.answer(d)
	s.leave(d)
	d.leave(s.o.Buffers)
}

// finish ends a call that has lost the reading.
func (d *desk) finish() {
	s := d.s
	s.mu.Lock() // takeOver may not be through yet
	buf := d.buf
	s.mu.Unlock()
	s.answer(d)
	if buf != nil {
		s.o.Buffers.reads.Put(buf)
	}
	s.leave(d)
	d.leave(s.o.Buffers)
}

// answer sends a call's answer from a goroutine of its own.
func (s *serving) answer(d *desk) {
	s.unsent.Add(1)
	m := s.limited(&d.rsp)
	how := alone
	if s.running.Load() > 1 {
		how = crowded
	}
	if len(m.Body) > frame.MaxBody {
		_, _ = s.sendParts(patience{ctx: s.ctx}, m, how) // where it fails the connection has
	} else {
		_, _ = s.send(patience{ctx: s.ctx}, m, payload{data: m.Body, gift: &m.Body}, how)
	}
	s.unsent.Add(-1)
	select {
	case s.room <- struct{}{}:
	default:
	}
}

// enter counts a call that runs on a goroutine of its own.
func (s *serving) enter(d *desk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count(d)
}

// count is enter for who holds the lock.
func (s *serving) count(d *desk) {
	s.work.Add(1)
	s.tracker.Hold()
	if s.active == nil {
		s.active = map[uint32]*callctx.Context{}
	}
	s.active[d.id] = d.ctx
	s.running.Add(1)
}

func (s *serving) leave(d *desk) {
	s.mu.Lock()
	delete(s.active, d.id)
	s.running.Add(-1)
	s.mu.Unlock()
	s.tracker.Release()
	s.work.Done()
}

func (s *serving) isActive(id uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.active[id] != nil
}

// takeOver takes the reading from the handler of that turn, unless it has just returned, and gives it to a new goroutine. The
// handler keeps its desk and the buffer in which its request lies.
func (s *serving) takeOver(turn uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.turn.CompareAndSwap(turn, turn+1) {
		return
	}
	d := s.desk
	d.route.Pace.Blocked(tick)
	d.buf = s.in.yield()
	s.count(d)
	s.desk = s.o.Buffers.desks.Get().(*desk)
	s.work.Go(func() {
		s.now = callctx.Now()
		s.flush() // the answers of the calls before it
		s.read()
	})
}
