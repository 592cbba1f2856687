package nsq

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	gonsq "github.com/nsqio/go-nsq"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/internal/delivery"
)

const (
	firstPause = 50 * time.Millisecond // before a connection is tried again
	lastPause  = 2 * time.Second
	leaveTime  = 2 * time.Second // for giving back what a closed subscription has
	backlog    = time.Minute     // in which what is older than a subscription may come
)

// subscription is a channel at each nsqd that has the topic.
type subscription struct {
	b             *Broker
	topic, queue  string
	name, channel string // NSQ's
	handler       broker.Handler
	pool          *delivery.Pool
	concurrency   int
	began         time.Time
	life          context.Context // ends when Close begins
	end           context.CancelFunc
	running       sync.WaitGroup
	once          sync.Once
	over          chan struct{} // closed when Close is done
	wake          chan struct{} // has an element when something waits
	sharing       sync.Mutex    // orders what is said of readiness

	mu      sync.Mutex
	closing bool
	links   map[string]bool          // the nsqd's that are cared for
	listed  []string                 // those that lookupd named last
	conns   map[*conn]*readiness     // that stand
	waiting []*held                  // for a place
	held    map[*held]struct{}       // what nsqd's take for under way here
	working map[*broker.Message]bool // what handlers have; true where the handler was left behind
	stuck   int                      // places of handlers that were left behind
	done    map[string]struct{}      // what was handled when there was no connection to say so
	reasons map[string]error         // why the last handler failed, where the dead letter could not be published
}

// readiness is what was said to an nsqd.
type readiness struct {
	count int
	since int64 // the nsqd's time when the subscription stood, in nanoseconds; 0 is not known
}

// held is a message that came.
type held struct {
	c     *conn
	m     *gonsq.Message
	since time.Time
}

func (h *held) key() string { return h.c.addr + " " + string(h.m.ID[:]) }

// subscribe makes a subscription, which stands at all nsqd's that answer, and at one at least.
func (b *Broker) subscribe(ctx context.Context, topic string, h broker.Handler, o broker.SubscribeOptions) (*subscription, error) {
	s := &subscription{
		b: b, topic: topic, queue: o.Queue, name: nameOf(topic), channel: ownName(), handler: h, concurrency: o.Concurrency, began: time.Now(),
		over: make(chan struct{}), wake: make(chan struct{}, 1), links: map[string]bool{}, conns: map[*conn]*readiness{}, held: map[*held]struct{}{},
		working: map[*broker.Message]bool{}, done: map[string]struct{}{}, reasons: map[string]error{},
	}
	if s.queue != "" {
		s.channel = nameOf(s.queue)
	}
	s.life, s.end = context.WithCancel(context.Background())
	s.pool = delivery.NewPool(s.handle, o)
	s.running.Go(s.dispatch)
	s.running.Go(s.beat)
	if err := s.begin(ctx); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

// begin connects to the nsqd's.
func (s *subscription) begin(ctx context.Context) error {
	addrs := slices.Clone(s.b.o.Servers)
	if len(s.b.o.Lookupd) > 0 {
		found, err := s.b.lookup.topic(ctx, s.name)
		if err != nil && len(addrs) == 0 {
			return err
		}
		if err != nil {
			s.b.o.Logger.Warn("lookupd does not answer", "topic", s.topic, "error", err)
		}
		s.listed = found
		addrs = append(addrs, found...)
		defer s.running.Go(s.poll)
	}
	slices.Sort(addrs)
	addrs = slices.Compact(addrs)
	first := make(chan error, len(addrs))
	for _, addr := range addrs {
		s.links[addr] = true
		s.running.Go(func() { s.keep(addr, first) })
	}
	var errs []error
	for range addrs {
		select {
		case err := <-first:
			if err != nil {
				errs = append(errs, err)
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if len(addrs) > 0 && len(errs) == len(addrs) {
		return foremost(errs)
	}
	return nil
}

// poll asks lookupd for further nsqd's.
func (s *subscription) poll() {
	for s.pause(s.b.o.LookupInterval*9/10 + rand.N(s.b.o.LookupInterval/5+1)) {
		found, err := s.b.lookup.topic(s.life, s.name)
		if err != nil {
			s.b.o.Logger.Debug("lookupd does not answer", "topic", s.topic, "error", err)
			continue
		}
		s.mu.Lock()
		s.listed = found
		var fresh []string
		for _, addr := range found {
			if !s.links[addr] {
				s.links[addr] = true
				fresh = append(fresh, addr)
			}
		}
		s.mu.Unlock()
		for _, addr := range fresh {
			s.running.Go(func() { s.keep(addr, nil) })
		}
	}
}

// pause waits for d, and reports whether the subscription stands.
func (s *subscription) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.life.Done():
		return false
	}
}

// keep has the subscription stand at an nsqd, for ever, or as long as lookupd lists it. first, where it is not nil, gets what became of
// the first connection.
func (s *subscription) keep(addr string, first chan<- error) {
	pause, said := firstPause, false
	for {
		c, err := s.connect(addr, first != nil)
		if first != nil {
			first <- err
			first = nil
		}
		log := s.b.o.Logger.With("nsqd", addr, "topic", s.topic, "queue", s.queue)
		switch {
		case s.life.Err() != nil:
			return
		case err == nil:
			if said {
				log.Info("nsqd is back")
			}
			pause, said = firstPause, true
			select {
			case <-c.done:
			case <-s.life.Done():
				return
			}
			s.drop(c)
			log.Warn("the connection to nsqd is lost", "error", reason(c.err))
		case !said:
			log.Warn("nsqd is not there", "error", err)
			said = true
		}
		if !s.wanted(addr) || !s.pause(pause+rand.N(pause)) {
			return
		}
		pause = min(2*pause, lastPause)
	}
}

// wanted reports whether a connection to addr is made again, and forgets addr where it is not.
func (s *subscription) wanted(addr string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Contains(s.b.o.Servers, addr) || slices.Contains(s.listed, addr) {
		return true
	}
	delete(s.links, addr)
	return false
}

// connect makes a connection on which messages come. initial says that Subscribe waits for it.
func (s *subscription) connect(addr string, initial bool) (*conn, error) {
	c, err := dial(s.life, addr, s.b.s, s.take)
	if err != nil {
		return nil, s.b.wrap(addr, err)
	}
	if err := c.do(s.life, gonsq.Subscribe(s.name, s.channel))[0]; err != nil {
		c.close()
		return nil, s.b.wrap(addr, err)
	}
	r := &readiness{}
	if initial && s.queue == "" {
		if r.since, err = s.b.clock(s.life, addr); err != nil {
			s.b.o.Logger.Debug("nsqd does not tell its time, and may deliver what is older than the subscription", "nsqd", addr, "topic", s.topic, "error", err)
		}
	}
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		c.close()
		return nil, broker.ErrClosed
	}
	s.conns[c] = r
	s.mu.Unlock()
	s.share()
	return c, nil
}

// clock gives the time at an nsqd, that it stamps messages with: that of a message to a topic which goes with the connection.
func (b *Broker) clock(ctx context.Context, addr string) (int64, error) {
	got := make(chan int64, 1)
	c, err := dial(ctx, addr, b.s, func(c *conn, m *gonsq.Message) {
		_ = c.send(gonsq.Finish(m.ID))
		select {
		case got <- m.Timestamp:
		default:
		}
	})
	if err != nil {
		return 0, err
	}
	defer c.close()
	topic := "micro.clock." + ownName()
	if err := c.do(ctx, gonsq.Subscribe(topic, "c"+ephemeral))[0]; err != nil {
		return 0, err
	}
	if err := c.send(gonsq.Ready(1)); err != nil {
		return 0, err
	}
	if err := c.do(ctx, gonsq.Publish(topic, []byte("?")))[0]; err != nil {
		return 0, err
	}
	timer := time.NewTimer(b.o.Timeout)
	defer timer.Stop()
	select {
	case at := <-got:
		return at, nil
	case <-c.done:
		return 0, errBroke
	case <-timer.C:
		return 0, errNoAnswer
	}
}

// drop forgets a connection that has ended, and what came on it and no handler has begun: nsqd delivers it again. What a subscription
// without a queue had is gone there, so that it is kept.
func (s *subscription) drop(c *conn) {
	s.mu.Lock()
	delete(s.conns, c)
	gone := func(h *held) bool { return h.c == c && s.queue != "" }
	for _, h := range s.waiting {
		if gone(h) {
			delete(s.held, h)
		}
	}
	s.waiting = slices.DeleteFunc(s.waiting, gone)
	s.mu.Unlock()
	s.share()
}

// share says to each nsqd how many messages may be under way here: those that there are places for, spread evenly.
func (s *subscription) share() {
	s.sharing.Lock()
	defer s.sharing.Unlock()
	say := map[*conn]int{}
	s.mu.Lock()
	for c, r := range s.conns {
		count := 0
		if free := s.concurrency - s.stuck; free > 0 && !s.closing {
			count = min((free+len(s.conns)-1)/len(s.conns), c.maxRdy)
		}
		if r.count != count {
			r.count = count
			say[c] = count
		}
	}
	s.mu.Unlock()
	for c, count := range say {
		_ = c.send(gonsq.Ready(count)) // of a connection that has ended there is nothing to say
	}
}

// take is called for one message after the other of a connection.
func (s *subscription) take(c *conn, m *gonsq.Message) {
	h := &held{c: c, m: m, since: time.Now()}
	s.mu.Lock()
	r := s.conns[c]
	_, done := s.done[h.key()]
	delete(s.done, h.key())
	old := r != nil && m.Timestamp < r.since && time.Since(s.began) < backlog
	closing := s.closing
	if !closing && !done && !old {
		s.held[h] = struct{}{}
		s.waiting = append(s.waiting, h)
	}
	s.mu.Unlock()
	switch {
	case done || old:
		_ = c.send(gonsq.Finish(m.ID))
	case closing:
		_ = c.send(gonsq.Requeue(m.ID, 0))
	default:
		s.stir()
	}
}

// stir wakes dispatch.
func (s *subscription) stir() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// dispatch gives what waits to handlers, as there are places.
func (s *subscription) dispatch() {
	for s.pool.Take(s.life.Done()) {
		h := s.next()
		for h == nil {
			select {
			case <-s.wake:
				h = s.next()
			case <-s.life.Done():
				s.pool.Give(1)
				return
			}
		}
		s.run(h)
	}
}

func (s *subscription) next() *held {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		s.waiting = nil
		return nil
	}
	h := s.waiting[0]
	s.waiting[0] = nil
	s.waiting = s.waiting[1:]
	return h
}

// beat tells nsqd's from time to time that messages are still under way.
func (s *subscription) beat() {
	every := s.b.o.AckWait / 3
	for s.pause(every) {
		var old []*held
		s.mu.Lock()
		for h := range s.held {
			if time.Since(h.since) >= every {
				old = append(old, h)
			}
		}
		s.mu.Unlock()
		for _, h := range old {
			_ = h.c.send(gonsq.Touch(h.m.ID)) // without it the message comes twice
		}
	}
}

func (s *subscription) Topic() string { return s.topic }
func (s *subscription) Queue() string { return s.queue }

// Close gives back what handlers have not begun, then what they have when they have returned.
func (s *subscription) Close() error {
	s.once.Do(func() {
		s.mu.Lock()
		s.closing = true
		conns := make([]*conn, 0, len(s.conns))
		for c := range s.conns {
			conns = append(conns, c)
		}
		s.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), leaveTime)
		defer cancel()
		each(conns, func(c *conn) { c.do(ctx, gonsq.StartClose()) }) // nothing comes behind it
		s.end()
		for h := s.next(); h != nil; h = s.next() {
			s.say(h, gonsq.Requeue(h.m.ID, 0))
		}
		s.pool.Close()
		s.running.Wait()
		s.b.forget(s)
		each(conns, func(c *conn) { c.leave(leaveTime) })
		close(s.over)
	})
	<-s.over
	return nil
}

// each calls f for all at once, and waits.
func each(conns []*conn, f func(*conn)) {
	var wg sync.WaitGroup
	for _, c := range conns {
		wg.Go(func() { f(c) })
	}
	wg.Wait()
}
