package natsconn

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// How a connection is kept.
const (
	firstWait = 50 * time.Millisecond // before a server is tried again
	lastWait  = 2 * time.Second
	pingTime  = 4 * time.Second // a connection is given up with the third ping, as two have no answer: it is dead for 8 to 12 s then
)

// Conn is a connection that is made when it is first asked for, and made anew whenever it is lost, until Close. Its methods may
// be called concurrently.
type Conn struct {
	o     Options
	hosts string // the servers, for errors

	life  context.Context // ends with Close
	end   context.CancelFunc
	start sync.Once
	busy  sync.WaitGroup // the goroutine that makes a *nats.Conn
	calls sync.Mutex     // one of Up, Down and Failed at a time

	flushing sync.Mutex // guards the two below
	next     *flush     // that has not begun; nil for none
	flows    bool       // flow runs

	// mu is not held where a method of nc is called: nats.go holds its own lock when it calls Dial, which takes this one.
	mu      sync.Mutex
	nc      *nats.Conn      // nil before the first
	live    context.Context // ends when the connection is lost
	lose    context.CancelCauseFunc
	over    chan struct{} // closed when nats.go has called nc's last callback
	dialed  net.Conn      // the last connection that was tried
	tried   bool          // what became of it is not known yet
	reason  error         // why there is no connection
	failed  int           // attempts since there was one
	change  chan struct{} // closed, and made anew, when one of the above changes
	denied  map[*denial]struct{}
	subs    map[*Subscription]struct{}
	noticed error // the last error of a permission that nats.go has reported
}

// New makes a connection that is not there yet: no server is asked anything. Errors are those of the options.
func New(o Options) (*Conn, error) {
	if err := o.complete(); err != nil {
		return nil, fmt.Errorf("%s: nats: %w", o.Words.Interface, err)
	}
	c := &Conn{o: o, hosts: strings.Join(o.Servers, ","), change: make(chan struct{}), denied: map[*denial]struct{}{}, subs: map[*Subscription]struct{}{}}
	c.life, c.end = context.WithCancel(context.Background())
	c.live, c.lose = context.WithCancelCause(c.life)
	c.lose(errBroke) // there is none yet
	return c, nil
}

// Hosts are the servers, for errors and logs.
func (c *Conn) Hosts() string { return c.hosts }

// Timeout is what Options say, or the default.
func (c *Conn) Timeout() time.Duration { return c.o.Timeout }

// Get gives the connection. Where there is none it waits for the attempt that is under way, of each server, and gives an error that
// wraps Words.Unavailable and the reason, or a *status.Error where NATS refuses the login. What it gives stays usable: it connects
// again by itself, with its subscriptions.
func (c *Conn) Get(ctx context.Context) (*nats.Conn, error) {
	if c.life.Err() != nil {
		return nil, c.o.Words.Closed
	}
	c.start.Do(func() { c.busy.Go(c.connect) })
	for {
		c.mu.Lock()
		nc, up, reason, hopeless, change := c.nc, c.live.Err() == nil, c.reason, c.failed >= len(c.o.Servers), c.change
		c.mu.Unlock()
		if up && nc.IsConnected() {
			return nc, nil
		}
		if hopeless {
			return nil, c.Error(reason)
		}
		timer := time.NewTimer(c.o.Timeout)
		select {
		case <-change:
			timer.Stop()
		case <-timer.C:
			return nil, c.Error(nats.ErrTimeout)
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx)
		case <-c.life.Done():
			timer.Stop()
			return nil, c.o.Words.Closed
		}
	}
}

// Current gives the connection where there is one now, else nil, and does not wait.
func (c *Conn) Current() *nats.Conn {
	c.mu.Lock()
	nc, live := c.nc, c.live
	c.mu.Unlock()
	if live.Err() != nil || !nc.IsConnected() {
		return nil
	}
	return nc
}

// While gives a context that ends with ctx, and when the connection is lost that Get gave last: its cause says so then.
func (c *Conn) While(ctx context.Context) (context.Context, context.CancelFunc) {
	c.mu.Lock()
	live := c.live
	c.mu.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(live, func() { cancel(context.Cause(live)) })
	return ctx, func() { stop(); cancel(nil) }
}

// connect makes a *nats.Conn, however often it has to try. That makes further connections by itself: it would try the first time too,
// but does not tell why it cannot.
func (c *Conn) connect() {
	for n := 1; c.life.Err() == nil; n++ {
		over := make(chan struct{})
		nc, err := c.options(over).Connect()
		if err == nil {
			c.mu.Lock()
			c.over = over
			c.mu.Unlock()
			c.up(nc)
			return
		}
		c.attemptFailed(err)
		select {
		case <-time.After(wait(n)):
		case <-c.life.Done():
		}
	}
}

// ended is called when nats.go has given a connection up for good, as it does after errors of the server that it does not know.
func (c *Conn) ended(nc *nats.Conn) {
	why := nc.LastError()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.life.Err() != nil {
		return
	}
	if c.reason == nil {
		c.reason = why
	}
	c.failed = 0
	c.lose(errBroke)
	c.changed()
	c.busy.Go(c.connect)
}

// options are nats.go's.
func (c *Conn) options(over chan<- struct{}) nats.Options {
	n := nats.GetDefaultOptions()
	for _, s := range c.o.Servers {
		n.Servers = append(n.Servers, "nats://"+s)
	}
	n.Name, n.Timeout, n.TLSConfig, n.Secure = c.o.Name, c.o.Timeout, c.o.TLS, c.o.TLS != nil
	n.User, n.Password, n.Token = c.o.Username, c.o.Password, c.o.Token
	if c.o.CredentialsFile != "" {
		_ = nats.UserCredentials(c.o.CredentialsFile)(&n) // it only sets two functions
	}
	n.CustomDialer, n.SkipHostLookup, n.NoEcho = c, true, c.o.NoEcho
	n.MaxReconnect, n.CustomReconnectDelayCB = -1, wait
	n.IgnoreAuthErrorAbort = true // a login may be mended at the server
	n.ReconnectBufSize = -1       // nothing waits for the next connection: whoever publishes is told
	n.PingInterval, n.ReconnectOnFlusherError = pingTime, true
	n.ReconnectedCB = c.up
	n.DisconnectedErrCB = func(_ *nats.Conn, err error) { c.down(err) }
	n.ReconnectErrCB = func(_ *nats.Conn, err error) { c.attemptFailed(err) }
	n.AsyncErrorCB = func(_ *nats.Conn, sub *nats.Subscription, err error) { c.notice(sub, err) }
	n.ClosedCB = func(nc *nats.Conn) { c.ended(nc); close(over) }
	return n
}

// wait is how long after n rounds of attempts the servers are tried again.
func wait(n int) time.Duration {
	d := firstWait
	for ; n > 1 && d < lastWait; n-- {
		d = d * 8 / 5
	}
	d = min(d, lastWait)
	return d + rand.N(d/5)
}

// Dial is for nats.go: it ends with the Conn.
func (c *Conn) Dial(network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: c.o.Timeout}
	conn, err := d.DialContext(c.life, network, address)
	if err == nil {
		c.triedInVain()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		return nil, dialError{err}
	}
	if c.dialed, c.tried = conn, true; c.life.Err() != nil {
		_ = conn.Close()
	}
	return conn, nil
}

// triedInVain takes in that the connection before this one came to nothing: nats.go says so of one that is refused, not of one that
// breaks before it stands.
func (c *Conn) triedInVain() {
	c.mu.Lock()
	vain, why := c.tried && c.nc != nil, errUnmade
	if isLogin(c.reason) { // which it has said
		why = c.reason
	}
	c.mu.Unlock()
	if vain {
		c.attemptFailed(why)
	}
}

// errUnmade: a server, or what stands before it, took the connection and closed it.
var errUnmade = errors.New("it closes connections before they stand")

// dialError keeps nats.go from taking a refused connection for nothing, which it does by its text.
type dialError struct{ cause error }

func (e dialError) Error() string { return "cannot connect" }
func (e dialError) Unwrap() error { return e.cause }

// changed tells those that wait. mu is held.
func (c *Conn) changed() {
	close(c.change)
	c.change = make(chan struct{})
}

func (c *Conn) up(nc *nats.Conn) {
	c.mu.Lock()
	was, another := c.reason, c.nc != nc
	subs := slices.Collect(maps.Keys(c.subs))
	c.mu.Unlock()
	if another {
		for _, s := range subs {
			_ = s.stand(nc) // it fails where nc is closed again, and another comes
		}
	}
	if was != nil {
		c.o.Logger.Info("nats is back", "nats", c.hosts)
	}
	if c.o.Up != nil {
		c.calls.Lock()
		c.o.Up(nc)
		c.calls.Unlock()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nc, c.reason, c.failed, c.tried = nc, nil, 0, false
	if c.lose(errBroke); c.life.Err() == nil {
		c.live, c.lose = context.WithCancelCause(c.life)
	}
	c.changed()
}

func (c *Conn) down(reason error) {
	if c.life.Err() != nil {
		return
	}
	if reason == nil {
		reason = nats.ErrDisconnected
	}
	c.o.Logger.Warn("nats is away", "nats", c.hosts, "error", Reason(reason))
	c.mu.Lock()
	c.reason, c.failed = reason, 0
	c.lose(errBroke)
	c.changed()
	c.mu.Unlock()
	if c.o.Down != nil {
		c.calls.Lock()
		defer c.calls.Unlock()
		c.o.Down(reason)
	}
}

func (c *Conn) attemptFailed(err error) {
	if c.life.Err() != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tried = false
	if c.nc == nil {
		c.failed = len(c.o.Servers) // all of them were tried
	} else {
		c.failed++
	}
	if c.reason == nil {
		c.o.Logger.Warn("nats is away", "nats", c.hosts, "error", Reason(err))
	}
	c.reason = err
	c.changed()
}

// notice takes what nats.go reports in the background.
func (c *Conn) notice(sub *nats.Subscription, err error) {
	if errors.Is(err, nats.ErrPermissionViolation) {
		c.mu.Lock()
		for d := range c.denied {
			if s, ok := deniedSubject(err); ok && d.subjects[s] {
				select {
				case d.err <- err:
				default: // it has one
				}
			}
		}
		c.noticed = err
		c.changed()
		c.mu.Unlock()
	}
	if isLogin(err) {
		c.attemptFailed(err)
	}
	if c.o.Failed != nil && c.life.Err() == nil {
		c.calls.Lock()
		defer c.calls.Unlock()
		c.o.Failed(sub, err)
	}
}

// Close ends the connection and all that uses it, and waits until no callback runs. It is safe to call twice.
func (c *Conn) Close() {
	c.start.Do(func() {}) // no more than what has begun
	c.mu.Lock()
	c.end()
	nc, dialed := c.nc, c.dialed
	c.mu.Unlock()
	if dialed != nil && (nc == nil || nc.IsClosed()) {
		_ = dialed.Close() // a handshake may be under way
	}
	c.busy.Wait()
	c.mu.Lock()
	nc, over := c.nc, c.over
	c.mu.Unlock()
	if nc != nil {
		nc.Close()
		<-over
	}
}
