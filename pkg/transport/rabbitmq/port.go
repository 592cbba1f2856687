package rabbitmq

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/cb02dfca/micro/internal/amqpconn"
)

const (
	// replyTo is RabbitMQ's name for whoever asks: it makes of it an address that ends at this very channel, with no queue in between.
	replyTo = "amq.rabbitmq.reply-to"
	// probeTime is how often peers are looked after of whom nothing was heard.
	probeTime = 2 * time.Second
	// unused is how long, in milliseconds, RabbitMQ keeps a queue of a port that nobody came to read.
	unused = 60_000
)

// port is what all connections of a Transport go through while one connection to RabbitMQ lives: a channel that sends, and receives
// what comes to its reply address, and a queue where what clients send comes to.
type port struct {
	t       *Transport
	session *amqpconn.Session
	ch      *amqp.Channel
	queue   string // of what clients send
	readers sync.WaitGroup

	mu    sync.Mutex
	conns map[string]*end
	err   error         // why the port has ended; set before done is closed
	done  chan struct{} // closed when it has
}

// end is a connection, and whether anything came to it since the last look.
type end struct {
	*Conn
	heard bool
}

// openPort sets a port up.
func openPort(t *Transport, s *amqpconn.Session) (*port, error) {
	p := &port{t: t, session: s, conns: map[string]*end{}, done: make(chan struct{}), queue: newName() + ".in"}
	if err := s.Do(p.start); err != nil {
		if p.ch != nil {
			_ = s.Do(p.ch.Close)
		}
		p.readers.Wait()
		return nil, err
	}
	p.readers.Go(p.look)
	return p, nil
}

// newName gives a name that nobody has.
func newName() string { return "micro.rpc." + strings.ToLower(rand.Text()) }

func (p *port) start() (err error) {
	if p.ch, err = p.session.Channel(); err != nil {
		return err
	}
	closed := p.ch.NotifyClose(make(chan *amqp.Error, 1))
	returns := p.ch.NotifyReturn(make(chan amqp.Return, 1))
	replies, err := p.ch.Consume(replyTo, "", true, false, false, false, nil)
	if err != nil {
		return err
	}
	// Not exclusive, so that peers may ask whether it is there; it goes with its reader.
	if _, err := p.ch.QueueDeclare(p.queue, false, true, false, false, amqp.Table{"x-queue-type": "classic", "x-expires": int32(unused)}); err != nil {
		return err
	}
	requests, err := p.ch.Consume(p.queue, "", true, true, false, false, nil)
	if err != nil {
		return err
	}
	p.readers.Go(func() { p.read(replies) })
	p.readers.Go(func() { p.read(requests) })
	p.readers.Go(func() {
		for r := range returns {
			p.returned(&r)
		}
		var why error = amqp.ErrClosed
		if e := <-closed; e != nil {
			why = e
		}
		p.end(p.t.link.Explain(why))
	})
	return nil
}

// read hands out what comes to a queue.
func (p *port) read(deliveries <-chan amqp.Delivery) {
	for d := range deliveries {
		if c := p.find(d.CorrelationId); c != nil {
			if len(d.Body) > 0 && d.Body[0] == frameWelcome {
				c.welcomed(d.Body)
				continue
			}
			c.receive(d.Body)
			continue
		}
		if len(d.Body) > 0 && d.Body[0] == frameWelcome { // to one who has left meanwhile
			if _, queue, err := readHello(d.Body); err == nil {
				_ = p.write(address{queue, serverKey(d.CorrelationId)}, []byte{frameBye})
			}
		}
	}
}

// find gives the connection that frames with a mark are for.
func (p *port) find(key string) *Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.conns[key]
	if e == nil {
		return nil
	}
	e.heard = true
	return e.Conn
}

// returned ends the connections to a queue that is not there.
func (p *port) returned(r *amqp.Return) {
	if c := p.find(clientKey(r.CorrelationId)); c != nil && c.to().queue == "" {
		c.end(errNobody) // of a hello
	}
	for _, c := range p.all() {
		if c.to().queue == r.RoutingKey {
			c.end(errGone)
		}
	}
}

// add takes a connection in, unless the port has ended.
func (p *port) add(c *Conn) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return p.err
	}
	p.conns[c.key] = &end{Conn: c, heard: true}
	return nil
}

func (p *port) remove(c *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.conns[c.key]; e != nil && e.Conn == c {
		delete(p.conns, c.key)
	}
}

// write gives a frame to RabbitMQ. What goes to a queue comes back where that is not there any more; of a reply address RabbitMQ
// cannot tell.
func (p *port) write(to address, frame []byte) error {
	return p.publish(to, amqp.Publishing{Body: frame})
}

func (p *port) publish(to address, m amqp.Publishing) error {
	m.CorrelationId = to.key
	err := p.ch.Publish("", to.queue, !strings.HasPrefix(to.queue, replyTo), false, m)
	if err != nil {
		return p.t.link.Explain(err)
	}
	return nil
}

// blocked gives, while RabbitMQ takes no messages, a channel that is closed when it does again, or is gone.
func (p *port) blocked() <-chan struct{} {
	_, over := p.session.Blocked()
	return over
}

// end ends the port's connections.
func (p *port) end(why error) {
	p.mu.Lock()
	p.err = why
	conns := p.conns
	p.conns = map[string]*end{}
	p.mu.Unlock()
	close(p.done)
	for _, e := range conns {
		e.Conn.end(why)
	}
}

func (p *port) alive() bool {
	select {
	case <-p.done:
		return false
	case <-p.session.Done():
		return false
	default:
		return !p.ch.IsClosed()
	}
}

// look looks after the peers of whom nothing was heard for a while: a process that is killed says no goodbye.
func (p *port) look() {
	ticks := time.NewTicker(probeTime)
	defer ticks.Stop()
	probe := &prober{session: p.session}
	for {
		select {
		case <-p.done:
			return
		case <-ticks.C:
		}
		if p.blocked() != nil {
			continue // nobody could say anything
		}
		for queue, conns := range p.silent() {
			if p.session.Do(func() error { return probe.ask(queue) }) != nil {
				break
			}
			if !probe.missing {
				continue
			}
			for _, c := range conns {
				c.end(errGone)
			}
		}
	}
}

// prober asks for queues.
type prober struct {
	session *amqpconn.Session
	ch      *amqp.Channel
	missing bool // the queue that was asked for
}

func (q *prober) ask(queue string) (err error) {
	if q.ch == nil {
		if q.ch, err = q.session.Channel(); err != nil {
			return err
		}
	}
	_, err = q.ch.QueueDeclarePassive(queue, false, false, false, false, nil)
	if q.missing = amqpconn.Missing(err); err != nil {
		q.ch = nil // RabbitMQ has closed it
	}
	return nil
}

// silent gives the connections of which nothing was heard since it was last called, by where their peers are, but for peers of whom
// another connection has heard.
func (p *port) silent() map[string][]*Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	silent, heard := map[string][]*Conn{}, map[string]bool{}
	for _, e := range p.conns {
		queue := e.to().queue
		if heard[queue] = heard[queue] || e.heard; queue != "" {
			silent[queue] = append(silent[queue], e.Conn)
		}
		e.heard = false
	}
	for queue := range heard {
		if heard[queue] {
			delete(silent, queue)
		}
	}
	return silent
}

// greet opens a connection to the listener at addr.
func (p *port) greet(ctx context.Context, addr string) (*Conn, error) {
	id := rand.Text()[:16]
	c := newConn(p, clientKey(id), addr)
	if err := p.add(c); err != nil {
		return nil, err
	}
	hail := amqp.Publishing{Body: hello(window), ReplyTo: replyTo, Expiration: "30000"} // one that nobody reads is not to come to somebody later
	if err := p.publish(address{addr, id}, hail); err != nil {
		p.remove(c)
		return nil, err
	}
	select {
	case <-c.opened:
		return c, nil
	case <-c.gone:
		select {
		case <-c.opened: // and closed
			return c, nil
		default:
		}
		return nil, c.why
	case <-ctx.Done():
		_ = c.Close() // a welcome that comes later is answered by a goodbye
		return nil, ctx.Err()
	}
}

// Frames are marked with what a connection is called, and which of its ends they are for: both may be in one process.
func clientKey(id string) string { return "c" + strings.TrimPrefix(strings.TrimPrefix(id, "c"), "s") }
func serverKey(id string) string { return "s" + strings.TrimPrefix(strings.TrimPrefix(id, "c"), "s") }

var (
	errNobody = errors.New("connection refused: nobody listens there")
	errGone   = errors.New("the peer is gone")
)

// all gives the connections that live.
func (p *port) all() []*Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []*Conn
	for _, e := range p.conns {
		all = append(all, e.Conn)
	}
	return all
}
