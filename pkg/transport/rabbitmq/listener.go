package rabbitmq

import (
	"context"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/cb02dfca/micro/internal/amqpconn"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/internal/drain"
)

const (
	backlog    = 128                    // connections that wait for Accept; a further one is refused
	firstPause = 100 * time.Millisecond // before a queue that could not be had again is asked for once more
	lastPause  = 2 * time.Second
)

// Listener yields the connections to one address: a queue, which it makes again when RabbitMQ was away.
type Listener struct {
	t       *Transport
	addr    string
	life    context.Context // ends with Close
	stop    context.CancelFunc
	pending chan *Conn
	done    chan struct{} // closed when run has ended

	mu    sync.Mutex
	conns map[*Conn]struct{} // the accepted ones that live
}

var (
	_ transport.Listener   = (*Listener)(nil)
	_ transport.Shutdowner = (*Listener)(nil)
)

// reception is where hellos come to.
type reception struct {
	port   *port
	ch     *amqp.Channel
	hellos <-chan amqp.Delivery
}

// listen sets the address up at RabbitMQ.
func (l *Listener) listen(p *port) (*reception, error) {
	r := &reception{port: p}
	if err := p.session.Do(func() error { return r.start(l.addr) }); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

// close ends the channel, and with it the queue, as nobody reads it any more.
func (r *reception) close() {
	if r.ch != nil {
		_ = r.port.session.Do(r.ch.Close)
	}
}

func (r *reception) start(addr string) (err error) {
	if r.ch, err = r.port.session.Channel(); err != nil {
		return err
	}
	// Exclusive: it goes with its connection, and another who wants it is told that it is taken.
	if _, err := r.ch.QueueDeclare(addr, false, true, true, false, amqp.Table{"x-queue-type": "classic"}); err != nil {
		return err
	}
	if err := r.ch.Qos(backlog, 0, false); err != nil {
		return err
	}
	r.hellos, err = r.ch.Consume(addr, "", false, true, false, false, nil)
	return err
}

// run serves the address, and takes it again when RabbitMQ was away, until Close.
func (l *Listener) run(r *reception) {
	defer close(l.done)
	for {
		l.serve(r)
		for pause := firstPause; ; pause = min(2*pause, lastPause) {
			if l.life.Err() != nil {
				return
			}
			p, err := l.t.await(l.life)
			if err == nil {
				if r, err = l.listen(p); err == nil {
					break
				}
			}
			if l.life.Err() == nil {
				l.t.o.Logger.Warn("the address could not be taken again, trying on", "address", l.addr, "error", l.t.link.Explain(err))
			}
			if amqpconn.Sleep(l.life, pause) != nil {
				return
			}
		}
	}
}

// serve takes connections in, until the channel ends, or the Listener.
func (l *Listener) serve(r *reception) {
	defer r.close()
	for {
		select {
		case d, ok := <-r.hellos:
			if !ok {
				return
			}
			l.greeted(r.port, &d)
			_ = d.Ack(false)
		case <-l.life.Done():
			return
		}
	}
}

// greeted opens a connection for a hello.
func (l *Listener) greeted(p *port, d *amqp.Delivery) {
	if len(d.Body) == 0 || d.Body[0] != frameHello || d.ReplyTo == "" {
		return // from one who speaks something else
	}
	to := address{d.ReplyTo, clientKey(d.CorrelationId)}
	allowed, _, err := readHello(d.Body)
	if err != nil {
		_ = p.write(to, append([]byte{frameRefuse}, err.Error()...))
		return
	}
	c := newConn(p, serverKey(d.CorrelationId), "rabbitmq:"+d.CorrelationId)
	c.tracker, c.listener = new(drain.Tracker), l
	c.open(to, allowed)
	if p.find(c.key) != nil || p.add(c) != nil {
		return
	}
	if err := p.write(to, welcome(window, p.queue)); err != nil {
		c.end(err)
		return
	}
	select {
	case l.pending <- c:
	default:
		_ = p.write(to, append([]byte{frameRefuse}, "too many connections wait to be accepted"...))
		c.end(transport.ErrClosed)
	}
}

// Accept waits for the next connection. After Close it returns transport.ErrClosed.
func (l *Listener) Accept() (transport.Conn, error) {
	if l.life.Err() != nil {
		return nil, transport.ErrClosed
	}
	select {
	case <-l.life.Done():
		return nil, transport.ErrClosed
	case c := <-l.pending:
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.life.Err() != nil {
			go c.Close() // it says goodbye
			return nil, transport.ErrClosed
		}
		l.conns[c] = struct{}{}
		return c, nil
	}
}

// Addr is the queue's name, which is what to dial.
func (l *Listener) Addr() string { return l.addr }

// Close frees the address and closes the connections that nobody accepted.
func (l *Listener) Close() error {
	l.mu.Lock()
	l.stop()
	l.mu.Unlock()
	<-l.done
	l.t.forget(l)
	for {
		select {
		case c := <-l.pending:
			_ = c.Close() // it has no error to give
		default:
			return nil
		}
	}
}

// Shutdown closes the listener, sends GoAway on every accepted connection, and closes each when its calls and streams
// were answered. It returns when all are closed, or with ctx's error.
func (l *Listener) Shutdown(ctx context.Context) error {
	_ = l.Close() // it has no error to give
	l.mu.Lock()
	var draining sync.WaitGroup
	for c := range l.conns {
		draining.Go(func() { c.drain(ctx) })
	}
	l.mu.Unlock()
	draining.Wait()
	return ctx.Err()
}

func (l *Listener) forget(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}
