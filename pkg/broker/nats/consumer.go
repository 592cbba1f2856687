package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/cb02dfca/micro/internal/natsconn"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/internal/delivery"
	"github.com/cb02dfca/micro/pkg/broker/internal/envelope"
)

const (
	minAckWait  = time.Second
	maxRetry    = time.Minute
	pullTime    = 20 * time.Second // that a pull stands at the server
	pulseTime   = 2 * time.Second  // after which the server says that a pull still stands
	silence     = 3 * pulseTime    // after which one that it has not spoken of is lost
	maxPull     = 256              // messages of one pull
	hearTime    = 100 * time.Millisecond
	leaveTime   = 2 * time.Second // for giving back what a closed subscription has
	abandonTime = 5 * time.Minute // after which the consumer of a process that died is taken away

	// What was taken away is made again only then: its server tells of it before it has removed the files, and gives those to
	// one of the same name that comes sooner, or removes them of it.
	restTime  = 500 * time.Millisecond
	makeTries = 10 // of making a consumer that has nothing of an earlier one

	madeKey = "micro-made" // of a consumer's metadata: tells one that was made from another of its name
)

// consumer is a subscription to a stream.
type consumer struct {
	b            *Broker
	s            *stream
	topic, queue string
	subject      string
	strict       bool // one message at a time, and its deliveries before the next
	name         string
	handlers     *delivery.Pool
	inbox        *natsconn.Subscription
	prefix       string        // of the subjects that messages and the ends of pulls come to
	ackWait      time.Duration // of the consumer
	closing      chan struct{} // closed when Close begins
	over         chan struct{} // closed when it is done
	running      sync.WaitGroup
	once         sync.Once
	spoke        chan struct{} // has an element when something was said

	mu      sync.Mutex
	pull    pull
	check   bool                 // the consumer may be gone
	created time.Time            // when its stream was
	epoch   int                  // how many streams of that name went before it
	next    uint64               // the sequence behind the last message that came; 0: none has a place yet
	held    map[string]place     // what handlers have, by the subject that settles it
	undone  map[uint64]struct{}  // what came and is not acknowledged, of a subscription without a queue
	later   map[uint64]time.Time // what is to come again after a failure, to whichever member, and when it has at the latest
	said    map[string]*word     // what is to be said, by that subject, until JetStream has heard it
	reasons map[uint64]error     // why the last handler failed, where the dead letter could not be stored
}

// pull is a request for messages. There is one at a time.
type pull struct {
	number uint64
	want   int           // messages that are to come; as many places are taken
	ended  chan struct{} // closed when none is to come any more
	heard  time.Time     // when the server last spoke of it
}

func newConsumer(ctx context.Context, b *Broker, topic string, h broker.Handler, o broker.SubscribeOptions) (subscription, error) {
	c := &consumer{
		b: b, s: b.stream, topic: topic, queue: o.Queue, subject: subjectOf(topic), strict: o.Queue == "" && o.Concurrency == 1,
		handlers: delivery.NewPool(h, o), prefix: natsgo.NewInbox() + ".", closing: make(chan struct{}), over: make(chan struct{}),
		held: map[string]place{}, undone: map[uint64]struct{}{}, later: map[uint64]time.Time{}, said: map[string]*word{}, spoke: make(chan struct{}, 1), reasons: map[uint64]error{},
	}
	c.name = natsgo.NewInbox()[len(natsgo.InboxPrefix):] // nobody else's
	if c.queue != "" {
		c.name = consumerOf(topic, c.queue)
	}
	c.pull.ended = make(chan struct{})
	close(c.pull.ended)
	if err := c.make(ctx); err != nil {
		c.handlers.Close()
		return nil, c.s.said(err)
	}
	var err error
	if c.inbox, err = b.conn.Subscribe(ctx, c.prefix+"*", "", -1, c.take); err != nil {
		c.handlers.Close()
		c.unmake()
		return nil, err
	}
	c.running.Go(c.ask)
	c.running.Go(c.beat)
	c.running.Go(c.hear)
	return c, nil
}

// consumerInfo is what JetStream tells of a consumer.
type consumerInfo struct {
	Config struct {
		AckWait  time.Duration     `json:"ack_wait"`
		Filter   string            `json:"filter_subject"`
		Metadata map[string]string `json:"metadata"`
	} `json:"config"`
	Delivered struct {
		Consumer uint64 `json:"consumer_seq"`
		Stream   uint64 `json:"stream_seq"`
	} `json:"delivered"`
	Pending int `json:"num_ack_pending"`
}

// make makes the consumer, unless it is there. One that had been there and is gone begins where it was.
func (c *consumer) make(ctx context.Context) error {
	stream, err := c.s.have(ctx, c.subject)
	if err != nil {
		return err
	}
	c.mu.Lock()
	if !c.created.IsZero() && !c.created.Equal(stream.Created) { // the stream was taken away, and all in this one is new
		c.epoch++
		c.next = 0
		clear(c.held)
		clear(c.undone)
		clear(c.later)
		clear(c.said)
		clear(c.reasons)
	}
	c.created = stream.Created
	had := c.next != 0
	c.mu.Unlock()
	var info consumerInfo
	err = c.s.request(ctx, "CONSUMER.INFO."+c.s.name+"."+c.name, nil, &info)
	if is(err, codeConsumerNotFound) {
		info, err = c.anew(ctx, had)
	}
	if err != nil {
		return err
	}
	if info.Config.Filter != c.subject {
		return fmt.Errorf("%w: nats %s: stream %s: consumer %s is for %q, not for %q", broker.ErrInvalid, c.b.conn.Hosts(), c.s.name, c.name, info.Config.Filter, c.subject)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ackWait = max(info.Config.AckWait, minAckWait)
	if c.next == 0 {
		c.next = info.Delivered.Stream + 1
	}
	return nil
}

// anew makes a consumer that is not there. had says that it was.
func (c *consumer) anew(ctx context.Context, had bool) (info consumerInfo, err error) {
	for try := 1; ; try++ {
		if had {
			if err := rest(ctx); err != nil {
				return info, err
			}
		}
		mark := natsgo.NewInbox()[len(natsgo.InboxPrefix):]
		info = consumerInfo{}
		err = c.s.request(ctx, "CONSUMER.CREATE."+c.s.name+"."+c.name, map[string]any{"stream_name": c.s.name, "action": "create", "config": c.config(mark)}, &info)
		if is(err, codeConsumerExists) { // another member was quicker
			return info, c.s.request(ctx, "CONSUMER.INFO."+c.s.name+"."+c.name, nil, &info)
		}
		if err != nil || info.Config.Metadata[madeKey] != mark || info.Delivered.Consumer == 0 && info.Pending == 0 {
			return info, err
		}
		// It took over what one of its name left that was taken away: what was delivered and acknowledged since its files were
		// written would come again, and hold up the rest until then.
		c.b.o.Logger.Debug("a consumer has what another left, and is made again", "topic", c.topic, "queue", c.queue, "delivered", info.Delivered.Stream, "pending", info.Pending)
		if err := c.s.request(ctx, "CONSUMER.DELETE."+c.s.name+"."+c.name, nil, nil); err != nil && !is(err, codeConsumerNotFound) {
			return info, err
		}
		if had = true; try == makeTries {
			return info, fmt.Errorf("%w: nats %s: stream %s: consumer %s cannot be made: the server keeps what one of its name left", broker.ErrUnavailable, c.b.conn.Hosts(), c.s.name, c.name)
		}
	}
}

// rest waits until what was taken away is gone from a server's disk.
func rest(ctx context.Context) error {
	select {
	case <-time.After(restTime):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// config is the consumer's, with a mark by which it is known.
func (c *consumer) config(mark string) map[string]any {
	config := map[string]any{
		"name": c.name, "durable_name": c.name, "filter_subject": c.subject, "ack_policy": "explicit", "ack_wait": c.b.o.AckWait, "replay_policy": "instant",
		"max_deliver": -1, "max_ack_pending": -1, // tries are counted here, and what is under way is bounded by places
		"metadata": map[string]string{madeKey: mark},
	}
	if c.queue == "" {
		config["inactive_threshold"] = abandonTime
	}
	if c.strict {
		config["max_ack_pending"] = 1
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	from := c.b.o.From
	switch {
	case c.next != 0: // it was lost
		from = From{Sequence: c.next}
		for n := range c.undone {
			from.Sequence = min(from.Sequence, n)
		}
		for _, at := range c.held { // whose handler may fail
			from.Sequence = min(from.Sequence, at.sequence)
		}
		for n, until := range c.later {
			if time.Now().Before(until) {
				from.Sequence = min(from.Sequence, n)
			}
		}
	case c.epoch > 0: // the stream was too
		from = From{All: true}
	}
	switch {
	case from.All:
		config["deliver_policy"] = "all"
	case from.Sequence != 0:
		config["deliver_policy"], config["opt_start_seq"] = "by_start_sequence", from.Sequence
	case !from.Time.IsZero():
		config["deliver_policy"], config["opt_start_time"] = "by_start_time", from.Time.UTC()
	default:
		config["deliver_policy"] = "new"
	}
	return config
}

// unmake takes the consumer of a subscription without a queue away. Otherwise the server does, after a while.
func (c *consumer) unmake() {
	if c.queue != "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaveTime)
	defer cancel()
	_ = c.s.request(ctx, "CONSUMER.DELETE."+c.s.name+"."+c.name, nil, nil)
}

// ask pulls messages whenever there are places for them.
func (c *consumer) ask() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	pause := firstPause
	for c.handlers.Take(c.closing) {
		n := 1 + c.handlers.TakeMore(maxPull-1)
		ended, err := c.send(n)
		if err != nil {
			c.handlers.Give(n)
			c.b.o.Logger.Debug("no messages can be asked for", "topic", c.topic, "queue", c.queue, "error", err)
			if !c.wait(timer, nil, pause) {
				return
			}
			pause = min(2*pause, lastPause)
			continue
		}
		pause = firstPause
		for left := silence; left > 0; left = c.left(ended) {
			if !c.wait(timer, ended, left) {
				return
			}
		}
		c.end(true) // where nothing was said of it
	}
}

// left gives how long the pull may still be silent: not at all where it has ended.
func (c *consumer) left(ended <-chan struct{}) time.Duration {
	select {
	case <-ended:
		return 0
	default:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return silence - time.Since(c.pull.heard)
}

// wait waits until done is closed, or d is over. It reports whether the subscription stands.
func (c *consumer) wait(timer *time.Timer, done <-chan struct{}, d time.Duration) bool {
	timer.Reset(d)
	select {
	case <-done:
	case <-timer.C:
	case <-c.closing:
		return false
	}
	return true
}

// send asks for n messages, whose places are taken.
func (c *consumer) send(n int) (<-chan struct{}, error) {
	ctx := c.handlers.Context()
	nc, err := c.b.conn.Get(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	check := c.check
	c.check = false
	c.mu.Unlock()
	if check {
		if err := c.make(ctx); err != nil {
			c.mu.Lock()
			c.check = true
			c.mu.Unlock()
			return nil, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.closing:
		return nil, broker.ErrClosed
	default:
	}
	req, err := json.Marshal(map[string]any{"batch": n, "expires": pullTime, "idle_heartbeat": pulseTime})
	if err != nil {
		return nil, err
	}
	number := c.pull.number + 1
	if err := nc.PublishRequest(api+"CONSUMER.MSG.NEXT."+c.s.name+"."+c.name, c.prefix+strconv.FormatUint(number, 36), req); err != nil {
		return nil, err
	}
	c.pull = pull{number: number, want: n, ended: make(chan struct{}), heard: time.Now()}
	return c.pull.ended, nil
}

// end ends the pull, and gives the places back that it has. check says that the consumer may be gone.
func (c *consumer) end(check bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endPull(check)
}

func (c *consumer) endPull(check bool) {
	if c.pull.want > 0 {
		c.handlers.Give(c.pull.want)
		c.pull.want = 0
		c.check = c.check || check
		close(c.pull.ended)
	}
}

// connected is called when there is a connection again: the server knows nothing of the pull.
func (c *consumer) connected() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.check = true
	c.endPull(true)
	for _, w := range c.said {
		w.sent = false
	}
	c.speak()
}

// word is what is to be said of a message.
type word struct {
	what []byte
	sent bool // at this connection
}

// spawn runs f beside, unless the subscription is being closed. mu is held.
func (c *consumer) spawn(f func()) bool {
	select {
	case <-c.closing:
		return false
	default:
		c.running.Go(f)
		return true
	}
}

func (c *consumer) dropped(*natsgo.Subscription) bool { return false } // its inbox has no bound but its places

// take is called for one message after the other.
func (c *consumer) take(raw *natsgo.Msg) {
	at, ok := placeOf(raw.Reply)
	if !ok {
		c.told(raw)
		return
	}
	switch placed, open := c.admit(raw, &at); {
	case !open:
		c.release(raw.Reply, at, sayNak)
	case placed:
		c.begin(raw, at)
	}
}

// admit counts a message in, and reports whether the pull has a place for it. One that was asked for by a pull that was given up
// waits for a place elsewhere: the places that the present pull has taken only come free by the messages behind it.
func (c *consumer) admit(raw *natsgo.Msg, at *place) (placed, open bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at.epoch = c.epoch
	select {
	case <-c.closing:
		return false, false
	default:
	}
	c.hold(raw.Reply, *at)
	if c.pull.want > 0 {
		c.pull.heard = time.Now()
		if c.pull.want--; c.pull.want == 0 {
			close(c.pull.ended)
		}
		return true, true
	}
	held := *at
	c.spawn(func() {
		if c.handlers.Take(c.closing) {
			c.begin(raw, held)
		} else {
			c.release(raw.Reply, held, sayNak)
		}
	})
	return false, true
}

// begin gives a message to the handlers, in a place that is taken.
func (c *consumer) begin(raw *natsgo.Msg, at place) {
	m, err := envelope.Decode(raw.Data)
	switch {
	case err != nil:
		m = &broker.Message{Topic: c.topic, ID: fmt.Sprint(c.s.name, "-", at.sequence), Body: raw.Data}
		c.bury(raw.Reply, at, m, fmt.Errorf("it is no envelope: %w", err))
		return
	case at.delivery > c.b.o.Tries:
		m.Topic = c.topic
		c.bury(raw.Reply, at, m, c.lastReason(at.sequence))
		return
	}
	m.Topic = c.topic // whatever it says itself
	whole := *m
	c.handlers.Run(m, func(err error) { c.settle(raw, at, whole, err) })
}

// told takes what JetStream says of a pull.
func (c *consumer) told(raw *natsgo.Msg) {
	code := raw.Header.Get(statusHeader)
	c.mu.Lock()
	defer c.mu.Unlock()
	if code == "" || raw.Subject != c.prefix+strconv.FormatUint(c.pull.number, 36) {
		return // of an earlier pull
	}
	if c.pull.heard = time.Now(); code == "100" {
		return // it stands
	}
	if code != "408" && code != "404" { // its time is over
		c.b.o.Logger.Debug("a pull has ended", "topic", c.topic, "queue", c.queue, "status", code, "reason", raw.Header.Get(reasonHeader))
	}
	c.endPull(code != "408" && code != "404")
}

// hold notes what handlers have, or are about to. mu is held.
func (c *consumer) hold(reply string, at place) {
	c.held[reply] = at
	c.next = max(c.next, at.sequence+1)
	delete(c.later, at.sequence)
	if c.queue == "" {
		c.undone[at.sequence] = struct{}{}
	}
}

// settle tells JetStream what became of a message.
func (c *consumer) settle(raw *natsgo.Msg, at place, m broker.Message, err error) {
	switch {
	case err == nil:
		c.finish(raw.Reply, at, sayAck)
	case errors.Is(err, broker.ErrClosed) && c.handlers.Context().Err() != nil:
		c.release(raw.Reply, at, sayNak) // another may have it
	case at.delivery >= c.b.o.Tries:
		again, decodeErr := envelope.Decode(raw.Data) // the handler may have changed what it got
		if decodeErr == nil {
			m.Header, m.Body = again.Header, again.Body
		}
		c.dead(raw.Reply, at, &m, err)
	default:
		wait := c.b.o.RetryWait
		for range at.delivery - 1 {
			wait = min(2*wait, max(maxRetry, c.b.o.RetryWait))
		}
		c.b.o.Logger.Info("a handler failed, and its message comes again", "topic", c.topic, "queue", c.queue, "id", m.ID, "delivery", at.delivery, "after", wait, "error", err)
		c.again(raw.Reply, at, wait)
	}
}

// bury is dead, in the place of a handler.
func (c *consumer) bury(reply string, at place, m *broker.Message, cause error) {
	c.mu.Lock()
	spawned := c.spawn(func() {
		defer c.handlers.Give(1)
		c.dead(reply, at, m, cause)
	})
	c.mu.Unlock()
	if !spawned {
		c.handlers.Give(1)
		c.release(reply, at, sayNak)
	}
}

// dead makes a dead letter of a message. Where that cannot be stored the message comes again.
func (c *consumer) dead(reply string, at place, m *broker.Message, cause error) {
	tries := min(at.delivery, c.b.o.Tries)
	log := []any{"topic", c.topic, "queue", c.queue, "id", m.ID, "deliveries", tries, "error", cause}
	if broker.IsDeadTopic(c.topic) {
		c.b.o.Logger.Error("a dead letter was not handled, and is dropped", log...)
		c.finish(reply, at, sayTerm)
		return
	}
	letter := broker.DeadLetter(m, c.queue, tries, cause)
	out := encode(letter, letter.ID)
	out.Header.Set(idHeader, dedup(letter.Topic, c.name+" "+strconv.FormatUint(at.sequence, 10)))
	ctx, cancel := context.WithTimeout(context.Background(), c.b.conn.Timeout())
	defer cancel()
	if err := c.b.publish(ctx, []*natsgo.Msg{out}); err != nil {
		c.b.o.Logger.Error("a dead letter cannot be stored, and its message comes again", append(log, "why", err)...)
		c.mu.Lock()
		if at.epoch == c.epoch {
			c.reasons[at.sequence] = cause
		}
		c.mu.Unlock()
		c.again(reply, at, maxRetry)
		return
	}
	c.b.o.Logger.Warn("a message was not handled, and is a dead letter", append(log, "dead", letter.Topic)...)
	c.finish(reply, at, sayTerm)
}

// lastReason is why a message that has had its tries was not acknowledged.
func (c *consumer) lastReason(sequence uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.reasons[sequence]; err != nil {
		return err
	}
	return errors.New("the subscriber that had it went away, or did not answer")
}

// again says that a message is to come again after a while. Until then it is known here alone, should the consumer be taken away.
func (c *consumer) again(reply string, at place, wait time.Duration) {
	c.mu.Lock()
	if at.epoch == c.epoch {
		now := time.Now()
		maps.DeleteFunc(c.later, func(_ uint64, until time.Time) bool { return !now.Before(until) })
		c.later[at.sequence] = now.Add(wait + c.ackWait)
	}
	c.mu.Unlock()
	c.release(reply, at, sayLater(wait))
}

// finish settles a message for good.
func (c *consumer) finish(reply string, at place, what []byte) {
	c.mu.Lock()
	if at.epoch == c.epoch {
		delete(c.undone, at.sequence)
		delete(c.reasons, at.sequence)
	}
	c.mu.Unlock()
	c.release(reply, at, what)
}

// release says what becomes of a message that no handler has any more. It is said again at the next connection, unless JetStream has
// heard it. Of one from a stream that is gone nothing is said: another message has its place now.
func (c *consumer) release(reply string, at place, what []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at.epoch != c.epoch {
		return
	}
	delete(c.held, reply)
	w := &word{what: what}
	c.said[reply] = w
	if nc := c.b.conn.Current(); nc != nil {
		w.sent = nc.Publish(reply, what) == nil
	}
	c.speak()
}

// speak wakes hear.
func (c *consumer) speak() {
	select {
	case c.spoke <- struct{}{}:
	default:
	}
}

// hear asks from time to time whether what was said has arrived.
func (c *consumer) hear() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	for {
		select {
		case <-c.spoke:
		case <-c.closing:
			return
		}
		if !c.wait(timer, nil, hearTime) {
			return
		}
		c.heard(c.handlers.Context())
	}
}

// heard says what is not said yet, and forgets what has arrived.
func (c *consumer) heard(ctx context.Context) {
	nc, err := c.b.conn.Get(ctx)
	if err != nil {
		return // the next connection wakes hear
	}
	said := map[string]*word{}
	c.mu.Lock()
	for reply, w := range c.said {
		if w.sent = w.sent || nc.Publish(reply, w.what) == nil; w.sent {
			said[reply] = w
		}
	}
	c.mu.Unlock()
	if len(said) == 0 {
		return
	}
	err = c.b.conn.Publish(ctx) // of nothing: it is confirmed behind what was said
	c.mu.Lock()
	defer c.mu.Unlock()
	for reply, w := range said {
		if err == nil && c.said[reply] == w && w.sent {
			delete(c.said, reply)
		}
	}
	if err != nil {
		c.speak()
	}
}

// beat tells JetStream from time to time that handlers still run.
func (c *consumer) beat() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	old := map[string]bool{}
	for {
		c.mu.Lock()
		every := c.ackWait / 3
		c.mu.Unlock()
		if !c.wait(timer, nil, every) {
			return
		}
		now := map[string]bool{}
		c.mu.Lock()
		for reply := range c.held {
			now[reply] = true
		}
		c.mu.Unlock()
		for reply := range now {
			if nc := c.b.conn.Current(); nc != nil && old[reply] {
				_ = nc.Publish(reply, sayProgress) // without it the message comes twice
			}
		}
		old = now
	}
}

func (c *consumer) Topic() string { return c.topic }
func (c *consumer) Queue() string { return c.queue }

// Close gives back what handlers have not begun, then what they have when they have returned.
func (c *consumer) Close() error {
	c.once.Do(func() {
		c.mu.Lock()
		close(c.closing)
		c.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), leaveTime)
		defer cancel()
		if c.b.conn.Current() != nil {
			c.inbox.Drain(ctx) // so that what is given back does not come here
		} else {
			c.inbox.Close()
		}
		c.end(false)
		c.handlers.Close()
		c.b.forget(c)
		c.running.Wait()
		c.unmake()
		c.heard(ctx)
		close(c.over)
	})
	<-c.over
	return nil
}
