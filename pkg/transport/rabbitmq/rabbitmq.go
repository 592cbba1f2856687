package rabbitmq

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/cb02dfca/micro/internal/amqpconn"
	"github.com/cb02dfca/micro/pkg/transport"
)

// Scheme is what the transport is called in URLs, and in the records of nodes.
const Scheme = "rabbitmq"

const maxAddress = 200 // bytes of a queue's name

// Options of New. The zero value is good for a RabbitMQ on this machine as it comes.
type Options struct {
	// Addrs are nodes of one RabbitMQ, host:port, tried in turn. Default 127.0.0.1:5672, with TLS 5671.
	Addrs []string
	// VHost is the virtual host, which clients and servers share. Default "/".
	VHost string
	// Username and Password are the login. Both or none are given; without, it is guest, as RabbitMQ comes.
	Username, Password string
	// CredentialsFile is a file that holds both, as "name:password", and is read once. It is not given beside them.
	CredentialsFile string
	// TLS makes the connection to RabbitMQ TLS, with this configuration. Nil: in the clear.
	TLS *tls.Config
	// Timeout bounds each attempt to connect to RabbitMQ. Default 5 s.
	Timeout time.Duration
	// MaxMessage bounds a message's body, in bytes. Default transport.MaxMessage.
	MaxMessage int
	// Logger is told of RabbitMQ's absence and return. Nil: nobody is.
	Logger *slog.Logger
}

// Transport carries connections through a RabbitMQ. Its methods may be called concurrently. Whoever made it closes it.
type Transport struct {
	o    Options
	link *amqpconn.Link
	turn chan struct{} // holds a token while a port is being opened

	mu        sync.Mutex
	closed    bool
	port      *port // the latest, nil before there was one
	ports     sync.WaitGroup
	listeners map[string]*Listener
}

var _ transport.Transport = (*Transport)(nil)

// New makes a Transport. It asks RabbitMQ nothing: one that is not there, or takes no login, is the matter of the first Dial or Listen.
func New(o Options) (*Transport, error) {
	conn := amqpconn.Options{
		Addrs: o.Addrs, VHost: o.VHost, Username: o.Username, Password: o.Password, CredentialsFile: o.CredentialsFile,
		TLS: o.TLS, Timeout: o.Timeout, Logger: o.Logger, Name: "micro transport",
	}
	if err := conn.Complete(); err != nil {
		return nil, fmt.Errorf("transport: %w", err)
	}
	if o.MaxMessage < 0 {
		return nil, errors.New("transport: rabbitmq: a negative limit of messages")
	}
	if o.MaxMessage == 0 {
		o.MaxMessage = transport.MaxMessage
	}
	o.Logger = conn.Logger
	return &Transport{o: o, link: amqpconn.New(conn), turn: make(chan struct{}, 1), listeners: map[string]*Listener{}}, nil
}

// Scheme tells what the transport is called in the records of nodes.
func (t *Transport) Scheme() string { return Scheme }

// Dial connects to the listener at addr. The error of a RabbitMQ that refuses wraps a *status.Error beside.
func (t *Transport) Dial(ctx context.Context, addr string) (transport.Conn, error) {
	c, err := t.dial(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("%w: dial %q: %w", transport.ErrNotSent, addr, err)
	}
	return c, nil
}

func (t *Transport) dial(ctx context.Context, addr string) (*Conn, error) {
	if err := checkAddress(addr); err != nil {
		return nil, err
	}
	p, err := t.open(ctx, t.link.Session)
	if err != nil {
		return nil, err
	}
	return p.greet(ctx, addr)
}

// Listen takes addr, a name that becomes a queue. An empty one, and one that ends in ":0", is any free name.
func (t *Transport) Listen(ctx context.Context, addr string) (transport.Listener, error) {
	if addr == "" || strings.HasSuffix(addr, ":0") {
		addr = newName()
	}
	l, err := t.listen(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("transport: listen on %q: %w", addr, err)
	}
	return l, nil
}

func (t *Transport) listen(ctx context.Context, addr string) (*Listener, error) {
	if err := checkAddress(addr); err != nil {
		return nil, err
	}
	p, err := t.open(ctx, t.link.Session)
	if err != nil {
		return nil, err
	}
	l := &Listener{t: t, addr: addr, pending: make(chan *Conn, backlog), done: make(chan struct{}), conns: map[*Conn]struct{}{}}
	l.life, l.stop = context.WithCancel(context.Background())
	if err := t.take(l); err != nil {
		return nil, err
	}
	r, err := l.listen(p)
	if err != nil {
		t.forget(l)
		if amqpconn.Taken(err) {
			return nil, transport.ErrTaken
		}
		return nil, t.link.Explain(err)
	}
	go l.run(r)
	return l, nil
}

// CheckName checks that addr can be the name of a service's queue.
func (*Transport) CheckName(addr string) error { return checkAddress(addr) }

// checkAddress reports whether addr can be a queue's name here.
func checkAddress(addr string) error {
	switch {
	case addr == "" || len(addr) > maxAddress:
		return fmt.Errorf("an address of %d bytes, want 1 to %d", len(addr), maxAddress)
	case strings.HasPrefix(addr, "amq."):
		return fmt.Errorf("%q is no queue of a service: names that begin with amq. are RabbitMQ's own", addr)
	case strings.ContainsFunc(addr, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || r == utf8.RuneError }):
		return fmt.Errorf("%q is no queue of a service: want text without spaces", addr)
	}
	return nil
}

// take notes that this Transport has an address: RabbitMQ lets a connection take its own queue twice.
func (t *Transport) take(l *Listener) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return transport.ErrClosed
	}
	if t.listeners[l.addr] != nil {
		return transport.ErrTaken
	}
	t.listeners[l.addr] = l
	return nil
}

func (t *Transport) forget(l *Listener) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.listeners[l.addr] == l {
		delete(t.listeners, l.addr)
	}
}

// await is open that waits until RabbitMQ is there.
func (t *Transport) await(ctx context.Context) (*port, error) { return t.open(ctx, t.link.Await) }

// open gives the port, and sets one up where there is none.
func (t *Transport) open(ctx context.Context, session func(context.Context) (*amqpconn.Session, error)) (*port, error) {
	for {
		s, err := session(ctx)
		if err != nil {
			return nil, closedError(err)
		}
		select {
		case t.turn <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		p, err := t.on(s)
		<-t.turn
		if p != nil || err != nil {
			return p, err
		}
	}
}

// on gives the port on a session; nil where that has ended and another takes its place. The caller has the turn.
func (t *Transport) on(s *amqpconn.Session) (*port, error) {
	t.mu.Lock()
	present := t.port
	t.mu.Unlock()
	if present != nil && present.session == s {
		if present.alive() {
			return present, nil
		}
		select {
		case <-s.Done():
			return nil, nil
		default: // its channel has ended
		}
	}
	p, err := openPort(t, s)
	if err != nil {
		return nil, t.link.Explain(err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.port = p
	t.ports.Go(p.readers.Wait)
	return p, nil
}

func closedError(err error) error {
	if errors.Is(err, amqpconn.ErrClosed) {
		return transport.ErrClosed
	}
	return err
}

// Close closes the listeners, breaks the connections, and says goodbye to RabbitMQ.
func (t *Transport) Close() error {
	t.mu.Lock()
	t.closed = true
	var listeners []*Listener
	for _, l := range t.listeners {
		listeners = append(listeners, l)
	}
	p := t.port
	t.mu.Unlock()
	for _, l := range listeners {
		_ = l.Close() // it has no error to give
	}
	if p != nil {
		for _, c := range p.all() {
			_ = c.Close() // likewise
		}
	}
	t.link.Close()
	t.ports.Wait()
	return nil
}
