package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/cb02dfca/micro/internal/amqpconn"
)

// publisher writes messages to RabbitMQ, on a goroutine of its own: the client library writes as long as RabbitMQ lets it, and a
// Publish is to return when its context ends.
type publisher struct {
	b    *Broker
	jobs chan *job
	life context.Context // ends with close
	end  context.CancelFunc
	busy sync.WaitGroup
	lane *lane // the present one, or one that has ended; nil before there was one
}

// job is the messages of one Publish.
type job struct {
	ctx   context.Context
	ms    []publishing
	state atomic.Int32
	why   atomic.Pointer[string] // why RabbitMQ takes no messages, while it is waited for
	done  chan struct{}          // closed when it is over

	mu       sync.Mutex
	left     int // messages that are not confirmed
	refused  int // by RabbitMQ
	returned int // there is no queue for them
	over     bool
	err      error
}

// The states of a job. Whoever takes it from waiting has it: the publisher, or a Publish that gives up.
const (
	waiting = iota
	sending
	withdrawn
)

func newPublisher(b *Broker) *publisher {
	p := &publisher{b: b, jobs: make(chan *job)}
	p.life, p.end = context.WithCancel(context.Background())
	p.busy.Go(p.run)
	return p
}

// close ends the publisher. What it has in hand fails when its connection is closed, which is up to the caller.
func (p *publisher) close() {
	p.end()
	p.b.publishing.Close() // the end of a write that hangs, and of the lanes
	p.busy.Wait()
}

// publish gives ms, which stay as they are, to RabbitMQ, and returns when it has confirmed them all. unheard is how many of them
// there was no queue for.
func (p *publisher) publish(ctx context.Context, ms []publishing) (unheard int, err error) {
	j := &job{ctx: ctx, ms: ms, left: len(ms), done: make(chan struct{})}
	select {
	case p.jobs <- j:
	case <-ctx.Done():
		return 0, p.late(j)
	case <-p.life.Done():
		return 0, amqpconn.ErrClosed
	}
	select {
	case <-j.done:
	case <-ctx.Done():
		return 0, p.late(j)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case j.err != nil:
		return 0, j.err
	case j.refused > 0:
		return 0, away{fmt.Errorf("rabbitmq %s refused %d of %d messages: a queue of theirs is full, or fails", p.b.publishing.Host(), j.refused, len(j.ms))}
	}
	return j.returned, nil
}

// late gives the error of a job whose context has ended.
func (p *publisher) late(j *job) error {
	host, cause := p.b.publishing.Host(), context.Cause(j.ctx)
	said := "rabbitmq " + host + " has not confirmed in time, so that it is not known what was published"
	if j.state.CompareAndSwap(waiting, withdrawn) {
		said = "not published, rabbitmq " + host + " could not be given it in time"
		if why := j.why.Load(); why != nil {
			said = "not published, rabbitmq " + host + " takes no messages (" + *why + ")"
		}
	}
	if errors.Is(cause, context.DeadlineExceeded) {
		return away{fmt.Errorf("%s: %w", said, cause)}
	}
	return fmt.Errorf("%s: %w", said, cause)
}

func (p *publisher) run() {
	for {
		select {
		case j := <-p.jobs:
			if err := p.send(j); err != nil {
				j.fail(err)
			}
		case <-p.life.Done():
			return
		}
	}
}

// send writes a job's messages. An error says that it is over; else its lane tells what becomes of it.
func (p *publisher) send(j *job) error {
	for {
		l, err := p.open(j.ctx)
		if err != nil {
			return err
		}
		if err := p.unblocked(j, l); err != nil {
			return err
		}
		if !j.state.CompareAndSwap(waiting, sending) {
			return context.Cause(j.ctx) // its Publish has returned
		}
		again, err := l.send(j)
		if !again {
			return err
		}
		j.state.Store(waiting) // the connection had broken before: nothing of it was written
		if j.ctx.Err() != nil {
			return context.Cause(j.ctx)
		}
	}
}

// unblocked waits while RabbitMQ takes no messages.
func (p *publisher) unblocked(j *job, l *lane) error {
	for {
		reason, over := l.session.Blocked()
		if over == nil {
			return nil
		}
		j.why.Store(&reason)
		select {
		case <-over:
		case <-l.session.Done():
			return l.session.Err()
		case <-j.ctx.Done():
			return context.Cause(j.ctx)
		case <-p.life.Done():
			return amqpconn.ErrClosed
		}
	}
}

// open gives a lane that is open.
func (p *publisher) open(ctx context.Context) (*lane, error) {
	if p.lane != nil && p.lane.alive() {
		return p.lane, nil
	}
	s, err := p.b.publishing.Session(ctx)
	if err != nil {
		return nil, err
	}
	l, err := openLane(p.b, s)
	if err != nil {
		return nil, p.b.publishing.Explain(err)
	}
	p.lane = l
	p.busy.Go(l.read)
	return l, nil
}

// fail ends a job with an error, unless it is over.
func (j *job) fail(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.finish(err)
}

// finish ends a job. mu is held.
func (j *job) finish(err error) {
	if !j.over {
		j.over, j.err = true, err
		close(j.done)
	}
}

// lane is a channel that confirms, until it ends. One goroutine sends, and another reads what comes back.
type lane struct {
	b        *Broker
	session  *amqpconn.Session
	ch       *amqp.Channel
	returns  chan amqp.Return
	confirms chan amqp.Confirmation
	closed   chan *amqp.Error

	mu      sync.Mutex
	over    bool
	waiting []*sent // what is not confirmed, in the order of its tags
	looked  int     // of these, how many stand before the next that may be returned
}

// sent is one message that RabbitMQ has, or is being given.
type sent struct {
	j  *job
	id string
}

func openLane(b *Broker, s *amqpconn.Session) (*lane, error) {
	if err := declareExchange(b, s); err != nil {
		return nil, err
	}
	l := &lane{b: b, session: s}
	return l, s.Do(func() (err error) {
		if l.ch, err = s.Channel(); err != nil {
			return err
		}
		// Neither has room, so that they are read in the order in which RabbitMQ sends: a message that is returned is confirmed after.
		l.returns, l.confirms = l.ch.NotifyReturn(make(chan amqp.Return)), l.ch.NotifyPublish(make(chan amqp.Confirmation))
		l.closed = l.ch.NotifyClose(make(chan *amqp.Error, 1))
		if err = l.ch.Confirm(false); err != nil {
			_ = l.ch.Close()
		}
		return err
	})
}

func (l *lane) alive() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.over && !l.ch.IsClosed() && !l.session.IsClosed()
}

// send writes a job. again says that nothing of it was written, because the lane has ended.
func (l *lane) send(j *job) (again bool, err error) {
	for i := range j.ms {
		m := &j.ms[i]
		id, _ := m.Headers[keyID].(string)
		if !l.add(&sent{j, id}) {
			return i == 0, l.unconfirmed(nil)
		}
		// Mandatory: what no queue is there for comes back.
		if err := l.ch.Publish(m.exchange, m.key, true, false, m.Publishing); err != nil {
			if i == 0 && errors.Is(err, amqp.ErrClosed) && l.takeBack() {
				return true, nil
			}
			_ = l.session.Do(l.ch.Close)
			return false, l.unconfirmed(err)
		}
	}
	return false, nil
}

// add notes that a message is about to be written, unless the lane has ended.
func (l *lane) add(m *sent) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return false
	}
	l.waiting = append(l.waiting, m)
	return true
}

// takeBack undoes the latest add, unless the lane has ended.
func (l *lane) takeBack() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return false
	}
	l.waiting = l.waiting[:len(l.waiting)-1]
	return true
}

// read takes in what comes back, always: a client that does not read confirmations stands still.
func (l *lane) read() {
	for l.confirms != nil || l.returns != nil {
		select {
		case r, ok := <-l.returns:
			if !ok {
				l.returns = nil
				continue
			}
			l.returned(&r)
		case c, ok := <-l.confirms:
			if !ok {
				l.confirms = nil
				continue
			}
			l.confirmed(c.Ack)
		}
	}
	l.ended(<-l.closed)
}

// confirmed settles the message that has waited longest: the client library gives confirmations in the order of the messages.
func (l *lane) confirmed(ack bool) {
	l.mu.Lock()
	if len(l.waiting) == 0 {
		l.mu.Unlock()
		return
	}
	m := l.waiting[0]
	l.waiting[0] = nil
	l.waiting = l.waiting[1:]
	l.looked = max(l.looked-1, 0)
	l.mu.Unlock()
	m.j.mu.Lock()
	defer m.j.mu.Unlock()
	if !ack {
		m.j.refused++
	}
	if m.j.left--; m.j.left == 0 {
		m.j.finish(nil)
	}
}

// returned notes a message that came back. They do so in their order.
func (l *lane) returned(r *amqp.Return) {
	id, _ := r.Headers[keyID].(string)
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := l.looked; i < len(l.waiting); i++ {
		if m := l.waiting[i]; m.id == id {
			l.looked = i + 1
			m.j.mu.Lock()
			m.j.returned++
			m.j.mu.Unlock()
			return
		}
	}
}

// ended fails what waits.
func (l *lane) ended(why *amqp.Error) {
	var cause error
	if why != nil {
		cause = why
	}
	l.mu.Lock()
	l.over = true
	left := l.waiting
	l.waiting = nil
	l.mu.Unlock()
	for _, m := range left {
		m.j.fail(l.unconfirmed(cause))
	}
}

// unconfirmed gives the error of messages that were written, and not confirmed, when the lane ended.
func (l *lane) unconfirmed(cause error) error {
	if cause == nil {
		cause = amqp.ErrClosed
	}
	err := l.b.publishing.Explain(cause)
	if amqpconn.Refused(err) {
		return err
	}
	return away{fmt.Errorf("not confirmed, so that it is not known what was published: %w", err)}
}
