package amqpconn

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// How a connection is made and kept.
const (
	heartbeat  = 6 * time.Second // RabbitMQ is asked for a sign of life twice in that time, and given up after half as much again
	writeTime  = 9 * time.Second // for one write: a peer that takes nothing for so long is lost
	frameSize  = 128 << 10
	firstPause = 50 * time.Millisecond // after an attempt that failed
	lastPause  = 2 * time.Second
	closeTime  = time.Second // for the goodbye
	// refusalTime is less than RabbitMQ lets one wait whom it refuses: 3 s, unless its silent_close_delay says otherwise.
	refusalTime = time.Second
)

// Link is a connection to RabbitMQ that is made when it is first asked for, and again when it has broken. Its methods may be
// called concurrently.
type Link struct {
	o    Options
	host string // the nodes, for errors

	life context.Context // ends with Close
	end  context.CancelFunc
	busy sync.WaitGroup // the goroutines of attempts and sessions

	mu      sync.Mutex
	closed  bool
	session *Session // the latest, nil before there was one
	attempt *attempt // the one under way
	failed  error    // of the latest attempt
	next    time.Time
	pause   time.Duration
	away    bool // the logger was told
}

// attempt is one way of making a connection, for all who ask.
type attempt struct {
	done    chan struct{}
	session *Session
	err     error
}

// Session is one connection, until it breaks.
type Session struct {
	*amqp.Connection
	link    *Link
	conn    net.Conn // without TLS, whose goodbye takes its time
	done    chan struct{}
	err     error // set before done is closed
	blocked atomic.Pointer[block]
}

// block is a time in which RabbitMQ takes no messages.
type block struct {
	reason string
	over   chan struct{}
}

// New gives a Link. It asks RabbitMQ nothing. o is complete.
func New(o Options) *Link {
	l := &Link{o: o, host: strings.Join(o.Addrs, ",")}
	l.life, l.end = context.WithCancel(context.Background())
	return l
}

// Host gives the nodes, for errors.
func (l *Link) Host() string { return l.host }

// Session gives the connection, and makes one where there is none. All who ask share an attempt. After one that failed there
// is a pause, up to 2 s as they go on failing; who asks in it gets the same error, at once. ctx bounds the waiting alone.
func (l *Link) Session(ctx context.Context) (*Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	l.mu.Lock()
	switch {
	case l.closed:
		l.mu.Unlock()
		return nil, ErrClosed
	case l.session != nil && l.session.alive():
		defer l.mu.Unlock()
		return l.session, nil
	case l.attempt == nil && time.Now().Before(l.next):
		defer l.mu.Unlock()
		return nil, l.failed
	case l.attempt == nil:
		l.attempt = &attempt{done: make(chan struct{})}
		a := l.attempt
		l.busy.Go(func() { l.try(a) })
	}
	a := l.attempt
	l.mu.Unlock()
	select {
	case <-a.done:
		return a.session, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Await is Session until it succeeds: it waits out the pauses. Its error is ErrClosed, or ctx's.
func (l *Link) Await(ctx context.Context) (*Session, error) {
	for {
		s, err := l.Session(ctx)
		if err == nil || errors.Is(err, ErrClosed) || ctx.Err() != nil {
			return s, err
		}
		l.mu.Lock()
		wait := time.Until(l.next)
		l.mu.Unlock()
		if err := Sleep(ctx, wait); err != nil {
			return nil, err
		}
	}
}

// Sleep waits for d, or until ctx ends, and gives ctx's error then.
func Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// try makes one attempt, at each node, and publishes its result.
func (l *Link) try(a *attempt) {
	var s *Session
	var err error
	for _, addr := range l.o.Addrs {
		began := time.Now()
		s, err = l.dial(addr)
		if err == amqp.ErrCredentials && time.Since(began) < refusalTime { // or the connection broke in the login: then it is not so twice
			s, err = l.dial(addr)
		}
		if err == nil || l.life.Err() != nil {
			break
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	defer close(a.done)
	l.attempt = nil
	if l.closed {
		if err == nil {
			s.sever()
		}
		a.err = ErrClosed
		return
	}
	if err != nil {
		a.err = l.Explain(err)
		l.pause = min(max(2*l.pause, firstPause), lastPause)
		l.failed, l.next = a.err, time.Now().Add(jittered(l.pause))
		if !l.away {
			l.away = true
			l.o.Logger.Warn("rabbitmq is away", "rabbitmq", l.host, "error", a.err)
		}
		return
	}
	if l.away {
		l.away = false
		l.o.Logger.Info("rabbitmq is back", "rabbitmq", l.host)
	}
	l.pause, l.failed, l.next = 0, nil, time.Time{}
	l.session, a.session = s, s
	l.busy.Go(s.watch)
}

func jittered(d time.Duration) time.Duration {
	return time.Duration((0.75 + 0.5*rand.Float64()) * float64(d))
}

// dial makes a connection and logs in.
func (l *Link) dial(addr string) (*Session, error) {
	ctx, cancel := context.WithTimeout(l.life, l.o.Timeout)
	defer cancel()
	tcp, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(l.life, func() { _ = tcp.Close() })()
	c, err := l.login(ctx, tcp, addr)
	if err != nil {
		_ = tcp.Close()
		switch deadline, _ := ctx.Deadline(); {
		case ctx.Err() != nil:
			err = ctx.Err()
		case !time.Now().Before(deadline): // the connection has the same deadline, and may say so first
			err = context.DeadlineExceeded
		}
		return nil, err
	}
	return &Session{Connection: c, link: l, conn: tcp, done: make(chan struct{})}, nil
}

// login makes a connection to RabbitMQ of one to its host. ctx has a deadline.
func (l *Link) login(ctx context.Context, conn net.Conn, addr string) (*amqp.Connection, error) {
	if l.o.TLS != nil {
		config := l.o.TLS.Clone()
		if config.ServerName == "" {
			config.ServerName, _, _ = net.SplitHostPort(addr)
		}
		secure := tls.Client(conn, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		conn = secure
	}
	conn = &impatient{Conn: conn}
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	return amqp.Open(conn, amqp.Config{
		SASL:  []amqp.Authentication{&amqp.PlainAuth{Username: l.o.Username, Password: l.o.Password}},
		Vhost: l.o.VHost, Heartbeat: heartbeat, FrameSize: frameSize, Locale: "en_US",
		Properties: amqp.Table{"product": "micro", "connection_name": l.o.Name},
	})
}

// impatient is a connection whose writes take a while at most: the client library has locks in its hands while it writes, and its
// own watch over a peer that is gone waits for them.
type impatient struct {
	net.Conn
	free atomic.Bool // of a deadline for all, as that of a login or a goodbye
}

// SetDeadline bounds all that is read and written; a zero one ends that.
func (c *impatient) SetDeadline(t time.Time) error {
	c.free.Store(t.IsZero())
	return c.Conn.SetDeadline(t)
}

func (c *impatient) Write(p []byte) (int, error) {
	if c.free.Load() {
		if err := c.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(p)
}

// watch follows a session to its end.
func (s *Session) watch() {
	closed := s.NotifyClose(make(chan *amqp.Error, 1))
	blocks := s.NotifyBlocked(make(chan amqp.Blocking, 1))
	var why error
	for closed != nil {
		select {
		case e, ok := <-closed:
			if ok {
				why = e
			}
			closed = nil
		case b, ok := <-blocks:
			if !ok {
				blocks = nil
				continue
			}
			s.see(b)
		}
	}
	if why == nil {
		why = amqp.ErrClosed
	}
	s.see(amqp.Blocking{})
	s.err = s.link.Explain(why)
	close(s.done)
	s.link.lost(s)
}

// see takes in whether RabbitMQ takes messages.
func (s *Session) see(b amqp.Blocking) {
	if old := s.blocked.Load(); old != nil {
		s.blocked.Store(nil)
		close(old.over)
	}
	if b.Active {
		s.blocked.Store(&block{reason: b.Reason, over: make(chan struct{})})
		s.link.o.Logger.Warn("rabbitmq takes no messages", "rabbitmq", s.link.host, "reason", b.Reason)
	}
}

// lost tells the logger of a session that broke.
func (l *Link) lost(s *Session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed && !l.away {
		l.away = true
		l.o.Logger.Warn("rabbitmq is away", "rabbitmq", l.host, "error", s.err)
	}
}

func (s *Session) alive() bool {
	select {
	case <-s.done:
		return false
	default:
		return !s.IsClosed()
	}
}

// Done gives a channel that is closed when the connection has ended. Err then tells why.
func (s *Session) Done() <-chan struct{} { return s.done }

// Err gives why the connection has ended, once Done is closed.
func (s *Session) Err() error {
	<-s.done
	return s.err
}

// Blocked gives, while RabbitMQ takes no messages, why that is, and a channel that is closed when it does again; else a nil
// channel.
func (s *Session) Blocked() (reason string, over <-chan struct{}) {
	if b := s.blocked.Load(); b != nil {
		return b.reason, b.over
	}
	return "", nil
}

// Do makes requests, which the client library waits for without end, and breaks the connection off if they take longer than the
// Link's Timeout, with context.DeadlineExceeded: RabbitMQ reads nothing of one that published while it was short of memory, and
// answers nothing about a queue that has no leader.
func (s *Session) Do(requests func() error) error {
	var late atomic.Bool
	timer := time.AfterFunc(s.link.o.Timeout, func() { late.Store(true); s.sever() })
	defer timer.Stop()
	err := requests()
	if err != nil && late.Load() { // the client library says that the connection broke
		return context.DeadlineExceeded
	}
	return err
}

// sever ends the connection without a goodbye.
func (s *Session) sever() { _ = s.conn.Close() }

// Close says goodbye where there is a connection, and ends attempts that are under way. It waits for the Link's goroutines.
func (l *Link) Close() {
	l.mu.Lock()
	first := !l.closed
	l.closed = true
	s := l.session
	l.mu.Unlock()
	l.end()
	if first && s != nil {
		_ = s.CloseDeadline(time.Now().Add(closeTime))
		s.sever()
	}
	l.busy.Wait()
}
