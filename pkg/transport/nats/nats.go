package nats

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/cb02dfca/micro/internal/natsconn"
	"github.com/cb02dfca/micro/pkg/transport"
)

// Options say how a Transport works. The zero value is good for a NATS on this machine.
type Options struct {
	// Servers are members of the cluster, host:port, tried in turn. Default 127.0.0.1:4222.
	Servers []string
	// Username and Password are given both or not at all, Token or CredentialsFile in place of them: a file of one line, "name:password",
	// or one of NATS's own form.
	Username, Password, Token, CredentialsFile string
	// TLS makes the connection to NATS TLS, with this configuration. Nil: in the clear, unless the server insists.
	TLS *tls.Config
	// Timeout bounds connecting to NATS, and the answer to a Dial. Default 5 s.
	Timeout time.Duration
	// MaxMessage is the limit of a message's body in bytes, both ways. Default transport.MaxMessage. It may be more than the
	// max_payload of NATS.
	MaxMessage int
	// Heartbeat is how long the peer of a connection may be silent before it is asked whether it lives. One that is silent for
	// three times that is lost. Default 10 s.
	Heartbeat time.Duration
	// Logger is told of NATS's absence and return, and of connections that were refused. Nil: nobody is.
	Logger *slog.Logger
}

// The limits.
const (
	window    = 1 << 20  // bytes under way in one direction of a connection; a further Send waits
	maxChunk  = 64 << 10 // bytes of a message in one frame
	maxLarge  = 8        // messages of several frames that are under way in one direction
	backlog   = 128      // connections that wait for Accept; a further Dial is refused
	maxConns  = 10_000   // connections that a listener holds
	maxInbox  = 64 << 20 // bytes that may wait to be handed to their connections
	listenAsk = 500 * time.Millisecond
)

// Transport makes connections over NATS, all of them over one connection to it. Make it with New, and Close it. Its methods may be
// called concurrently.
type Transport struct {
	o     Options
	conn  *natsconn.Conn
	inbox string // what the subjects of this Transport's ends begin with
	begun time.Time
	life  context.Context // ends with Close
	end   context.CancelFunc
	work  sync.WaitGroup

	ready sync.Mutex // of subscribed
	sub   *natsconn.Subscription

	mu        sync.Mutex
	ends      map[string]*Conn     // by token
	listeners map[string]*Listener // by subject
	last      uint64               // the latest token
	beating   bool
}

var (
	_ transport.Transport = (*Transport)(nil)
	_ transport.Schemed   = (*Transport)(nil)
	_ transport.Named     = (*Transport)(nil)
)

func words() natsconn.Words {
	return natsconn.Words{Interface: "transport", Unavailable: transport.ErrNotSent, Closed: transport.ErrClosed}
}

// New makes a Transport. It asks NATS nothing: one that is not there, or takes no login, is the matter of the first Dial or Listen.
func New(o Options) (*Transport, error) {
	if o.MaxMessage < 0 || o.Heartbeat < 0 {
		return nil, errors.New("transport: nats: a limit is negative")
	}
	if o.MaxMessage == 0 {
		o.MaxMessage = transport.MaxMessage
	}
	if o.Heartbeat == 0 {
		o.Heartbeat = 10 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	t := &Transport{o: o, inbox: nats.NewInbox(), begun: time.Now(), ends: map[string]*Conn{}, listeners: map[string]*Listener{}}
	var err error
	t.conn, err = natsconn.New(natsconn.Options{
		Servers: o.Servers, Username: o.Username, Password: o.Password, Token: o.Token, CredentialsFile: o.CredentialsFile,
		TLS: o.TLS, Timeout: o.Timeout, Logger: o.Logger, Words: words(), Down: t.down,
	})
	if err != nil {
		return nil, err
	}
	t.life, t.end = context.WithCancel(context.Background())
	return t, nil
}

// Scheme is "nats".
func (t *Transport) Scheme() string { return "nats" }

// CheckName checks that addr is a subject.
func (*Transport) CheckName(addr string) error { return validSubject(addr) }

// connect gives the connection to NATS, with the subscription that frames come by.
func (t *Transport) connect(ctx context.Context) (*nats.Conn, error) {
	nc, err := t.conn.Get(ctx)
	if err != nil {
		return nil, away(err)
	}
	t.ready.Lock()
	defer t.ready.Unlock()
	if t.sub == nil {
		if t.sub, err = t.conn.Subscribe(ctx, t.inbox+".>", "", maxInbox, t.receive); err != nil {
			t.sub = nil
			return nil, away(err)
		}
	}
	return nc, nil
}

// away makes the error of a NATS that cannot be reached one of text: it would be taken for that of the peer otherwise.
func away(err error) error {
	if !transport.NotSent(err) {
		return err
	}
	return errors.New("NATS at " + strings.TrimPrefix(err.Error(), transport.ErrNotSent.Error()+": "))
}

// Dial connects to the listener at addr, a subject. That nobody listens there NATS says at once.
func (t *Transport) Dial(ctx context.Context, addr string) (transport.Conn, error) {
	failed := func(err error) error {
		return fmt.Errorf("%w: dial %q: %w", transport.ErrNotSent, addr, err)
	}
	if err := ctx.Err(); err != nil {
		return nil, failed(err)
	}
	if err := validSubject(addr); err != nil {
		return nil, failed(err)
	}
	nc, err := t.connect(ctx)
	if err != nil {
		return nil, failed(err)
	}
	c := newConn(t, nc, addr)
	c.answer = make(chan error, 1)
	if err := t.add(c); err != nil {
		return nil, failed(err)
	}
	hello := &nats.Msg{Subject: addr, Reply: c.own + ".0", Data: control(frameHello)}
	if err := t.conn.Publish(ctx, hello); err != nil {
		t.remove(c)
		return nil, failed(away(err))
	}
	late := time.NewTimer(t.conn.Timeout())
	defer late.Stop()
	select {
	case err = <-c.answer:
	case <-ctx.Done():
		err = ctx.Err()
	case <-late.C:
		err = fmt.Errorf("no answer in time: %w", context.DeadlineExceeded)
	case <-c.over:
		err = c.why()
	}
	if err != nil {
		t.remove(c) // an answer that comes late is told so
		return nil, failed(err)
	}
	return c, nil
}

// Listen takes addr, a subject. An empty one, and one that ends in ":0", is a new inbox of NATS. That another listens there already is known
// of those that are connected.
func (t *Transport) Listen(ctx context.Context, addr string) (transport.Listener, error) {
	failed := func(err error) error { return fmt.Errorf("transport: nats: listen on %q: %w", addr, err) }
	if err := ctx.Err(); err != nil {
		return nil, failed(err)
	}
	given := addr != "" && !strings.HasSuffix(addr, ":0")
	if !given {
		addr = nats.NewInbox()
	}
	if err := validSubject(addr); err != nil {
		return nil, failed(err)
	}
	nc, err := t.connect(ctx)
	if err != nil {
		return nil, failed(err)
	}
	l := newListener(t, addr)
	if !t.claim(l) || given && taken(ctx, nc, addr) {
		l.forgetMe()
		return nil, failed(transport.ErrTaken)
	}
	sub, err := t.conn.Subscribe(ctx, addr, "", maxInbox, l.receive)
	if err != nil {
		l.forgetMe()
		return nil, failed(err)
	}
	if !l.begin(sub) {
		return nil, failed(transport.ErrClosed)
	}
	return l, nil
}

// claim makes l the listener of its subject in this Transport.
func (t *Transport) claim(l *Listener) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.listeners[l.addr] != nil {
		return false
	}
	t.listeners[l.addr], l.claimed = l, true
	return true
}

// taken reports whether somebody listens on a subject.
func taken(ctx context.Context, nc *nats.Conn, addr string) bool {
	ctx, cancel := context.WithTimeout(ctx, listenAsk)
	defer cancel()
	_, err := nc.RequestWithContext(ctx, addr, control(frameWho))
	return err == nil
}

// validSubject checks a subject that is published and subscribed to.
func validSubject(s string) error {
	for token := range strings.SplitSeq(s, ".") {
		if token == "" || strings.ContainsAny(token, "*> \t\r\n") {
			return fmt.Errorf("%q is no subject of NATS: want words without spaces, '*' and '>', with '.' between", s)
		}
	}
	return nil
}

// add gives an end its token.
func (t *Transport) add(c *Conn) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.life.Err() != nil {
		return transport.ErrClosed
	}
	t.last++
	c.token = strconv.FormatUint(t.last, 36)
	c.own = t.inbox + "." + c.token
	t.ends[c.token] = c
	if !t.beating {
		t.beating = true
		t.work.Go(t.beat)
	}
	return nil
}

func (t *Transport) remove(c *Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.ends, c.token)
}

// all gives the ends there are.
func (t *Transport) all() []*Conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	ends := make([]*Conn, 0, len(t.ends))
	for _, c := range t.ends {
		ends = append(ends, c)
	}
	return ends
}

// receive hands a frame to the end that it is for. One that is for none is answered by a reset, as the port of a program that has gone
// would.
func (t *Transport) receive(m *nats.Msg) {
	token, number, _ := strings.Cut(strings.TrimPrefix(m.Subject, t.inbox+"."), ".")
	t.mu.Lock()
	c := t.ends[token]
	t.mu.Unlock()
	f, ok := parse(m)
	if c != nil {
		c.take(f, ok, m, number)
		return
	}
	if ok && f.expects() && m.Reply != "" {
		t.publish(m.Reply, control(frameReset))
	}
}

// publish sends a frame for which no answer is expected. What fails is as good as lost on the way.
func (t *Transport) publish(subject string, data []byte) {
	if nc := t.conn.Current(); nc != nil {
		_ = nc.Publish(subject, data)
	}
}

// down ends all connections: what was under way may be lost.
func (t *Transport) down(reason error) {
	for _, c := range t.all() {
		c.fail(fmt.Errorf("the connection to NATS is lost: %w", natsconn.Reason(reason)))
	}
}

// beat asks the silent peers whether they live, until Close.
func (t *Transport) beat() {
	tick := time.NewTicker(t.o.Heartbeat / 2)
	defer tick.Stop()
	for last := t.now(); ; {
		select {
		case <-t.life.Done():
			return
		case <-tick.C:
		}
		now := t.now()
		paused := now-last > t.o.Heartbeat // this process did not run, and read nothing
		last = now
		for _, c := range t.all() {
			if paused {
				c.heard.Store(int64(now))
			}
			switch silent := now - time.Duration(c.heard.Load()); {
			case silent >= 3*t.o.Heartbeat:
				c.fail(fmt.Errorf("%s has been silent for %v", c.remote, silent.Round(time.Millisecond)))
			case silent >= t.o.Heartbeat:
				c.probe()
			}
		}
	}
}

// now is the time since the Transport was made.
func (t *Transport) now() time.Duration { return time.Since(t.begun) }

// Close ends the listeners and connections, and the connection to NATS. It is safe to call twice.
func (t *Transport) Close() error {
	t.mu.Lock()
	t.end()
	listeners := make([]*Listener, 0, len(t.listeners))
	for _, l := range t.listeners {
		listeners = append(listeners, l)
	}
	t.mu.Unlock()
	for _, l := range listeners {
		_ = l.Close() // its only error is nil
	}
	for _, c := range t.all() {
		_ = c.Close()
	}
	t.conn.Close()
	t.work.Wait()
	return nil
}
