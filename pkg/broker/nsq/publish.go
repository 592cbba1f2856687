package nsq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	gonsq "github.com/nsqio/go-nsq"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/internal/envelope"
)

const (
	partLen   = 512 << 10   // of the messages of one command
	avoidTime = time.Second // for which an nsqd that was away is tried last
)

// node is an nsqd that is published to.
type node struct {
	addr string
	turn chan struct{} // has an element while one connects

	mu     sync.Mutex
	c      *conn
	failed time.Time
	closed bool
}

func newNode(addr string) *node { return &node{addr: addr, turn: make(chan struct{}, 1)} }

// current gives the connection, where one was made, and whether it takes commands.
func (n *node) current() (c *conn, usable bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.c, n.c != nil && n.c.usable()
}

// get gives a connection, which is made when it is needed.
func (n *node) get(ctx context.Context, s settings) (*conn, error) {
	if c, ok := n.current(); ok {
		return c, nil
	}
	select {
	case n.turn <- struct{}{}:
		defer func() { <-n.turn }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", context.Cause(ctx), errNotRun)
	}
	old, ok := n.current()
	if ok {
		return old, nil
	}
	if old != nil {
		<-old.done // soon: its last words are read
	}
	c, err := dial(ctx, n.addr, s, nil)
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil {
		n.failed = time.Now()
		return nil, err
	}
	if n.closed {
		c.close()
		return nil, broker.ErrClosed
	}
	n.c, n.failed = c, time.Time{}
	return c, nil
}

func (n *node) away() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return time.Since(n.failed) < avoidTime
}

func (n *node) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	if n.c != nil {
		n.c.close()
	}
}

// Publish hands the messages to an nsqd and returns when that has confirmed that it has them; see the package's doc. An error wraps
// ErrUnavailable where no nsqd answers, or one went before it had confirmed, and ErrInvalid where a message is larger than the nsqd takes;
// it is a *status.Error where NSQ refuses: a secret that is not let in (401), a topic that it may not publish to (403).
func (b *Broker) Publish(ctx context.Context, ms ...*broker.Message) (broker.Report, error) {
	if err := broker.CheckMessages(ms, b.o.MaxMessage); err != nil {
		return broker.Report{}, err
	}
	what := "publish to " + ms[0].Topic
	if err := ctx.Err(); err != nil {
		return broker.Report{}, fmt.Errorf("broker: %s: %w", what, err)
	}
	inner, leave, err := b.gate.Enter(ctx)
	if err != nil {
		return broker.Report{}, err
	}
	defer leave()
	ids := b.series.IDs(ms, b.series.Take(len(ms)))
	cmds, err := commands(ms, ids)
	if err != nil {
		return broker.Report{}, b.failure(ctx, what, err)
	}
	if err := b.publish(inner, cmds); err != nil {
		return broker.Report{}, b.failure(ctx, what, err)
	}
	return broker.Report{ID: ids[0], IDs: ids}, nil
}

// commands gives what publishes messages: those of a topic in their order.
func commands(ms []*broker.Message, ids []string) ([]*gonsq.Command, error) {
	if len(ms) == 1 {
		return []*gonsq.Command{gonsq.Publish(nameOf(ms[0].Topic), envelope.Encode(ms[0], ids[0]))}, nil
	}
	type part struct {
		bodies [][]byte
		size   int
	}
	var cmds []*gonsq.Command
	var topics []string // in their order
	open := map[string]*part{}
	finish := func(topic string) error {
		cmd, err := gonsq.MultiPublish(nameOf(topic), open[topic].bodies)
		cmds = append(cmds, cmd)
		*open[topic] = part{}
		return err
	}
	for i, m := range ms {
		p := open[m.Topic]
		if p == nil {
			p = &part{}
			open[m.Topic] = p
			topics = append(topics, m.Topic)
		}
		body := envelope.Encode(m, ids[i])
		if p.size > 0 && p.size+len(body) > partLen {
			if err := finish(m.Topic); err != nil {
				return nil, err
			}
		}
		p.bodies, p.size = append(p.bodies, body), p.size+len(body)
	}
	for _, topic := range topics {
		if len(open[topic].bodies) > 0 {
			if err := finish(topic); err != nil {
				return nil, err
			}
		}
	}
	return cmds, nil
}

// publish sends commands to an nsqd, in their order. What another can have is sent there.
func (b *Broker) publish(ctx context.Context, cmds []*gonsq.Command) error {
	nodes, err := b.order(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range nodes {
		for began := time.Now(); ; {
			c, err := n.get(ctx, b.s)
			if err != nil {
				errs = append(errs, b.wrap(n.addr, err))
				break
			}
			left, err := try(ctx, c, cmds)
			if err == nil {
				return nil
			}
			if !elsewhere(err) {
				return b.unconfirmed(n.addr, err)
			}
			cmds = left
			if !errors.Is(err, errNotRun) || time.Since(began) > b.o.Timeout {
				errs = append(errs, b.wrap(n.addr, err))
				break
			} // the refusal of another Publish had ended the connection
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		b.pass(n)
	}
	return foremost(errs)
}

// try sends commands, and gives those that are not confirmed, and why the first of them is not.
func try(ctx context.Context, c *conn, cmds []*gonsq.Command) (left []*gonsq.Command, err error) {
	for i, out := range c.do(ctx, cmds...) {
		if out != nil {
			left = append(left, cmds[i])
			if err == nil || elsewhere(err) && !elsewhere(out) {
				err = out
			}
		}
	}
	return left, err
}

// elsewhere reports whether what failed may be sent to another nsqd.
func elsewhere(err error) bool {
	var r *refusal
	return errors.Is(err, errNotRun) || errors.As(err, &r) && r.passing()
}

// unconfirmed gives the error of a command that may have been run, or was refused for good.
func (b *Broker) unconfirmed(addr string, err error) error {
	if errors.As(err, new(*refusal)) || errors.Is(err, context.Canceled) || errors.Is(err, broker.ErrClosed) {
		return b.wrap(addr, err)
	}
	return fmt.Errorf("%w: nsqd %s has not confirmed, and may have it: %w", broker.ErrUnavailable, addr, reason(err))
}

// foremost gives the error to be told where each nsqd had one: a refusal before those that are away.
func foremost(errs []error) error {
	for _, err := range errs {
		if !errors.Is(err, broker.ErrUnavailable) {
			return err
		}
	}
	if len(errs) == 1 {
		return errs[0]
	}
	texts := make([]string, len(errs))
	for i, err := range errs {
		texts[i] = strings.TrimPrefix(err.Error(), broker.ErrUnavailable.Error()+": ")
	}
	return fmt.Errorf("%w: %s", broker.ErrUnavailable, strings.Join(texts, "; "))
}

// order gives the nsqd's, in the order in which they are tried: the one that was published to last first, and those that were away a
// moment ago last.
func (b *Broker) order(ctx context.Context) ([]*node, error) {
	addrs := b.o.Servers
	if len(addrs) == 0 {
		var err error
		if addrs, err = b.lookup.nodes(ctx); err != nil {
			return nil, err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	nodes := make([]*node, 0, len(addrs))
	for i := range addrs {
		addr := addrs[(b.first+i)%len(addrs)]
		if b.nodes[addr] == nil {
			b.nodes[addr] = newNode(addr)
		}
		nodes = append(nodes, b.nodes[addr])
	}
	slices.SortStableFunc(nodes, func(x, y *node) int { return rank(x) - rank(y) })
	return nodes, nil
}

func rank(n *node) int {
	if n.away() {
		return 1
	}
	return 0
}

// pass goes on to another nsqd than n, for the next Publish too.
func (b *Broker) pass(n *node) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := slices.Index(b.o.Servers, n.addr); i >= 0 && b.first%len(b.o.Servers) == i {
		b.first = i + 1
	}
}
