package grpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cb02dfca/micro/internal/socket"
	"github.com/cb02dfca/micro/pkg/transport"
)

// pingTimeout is how long a server that was asked whether it lives may take to answer.
const pingTimeout = 15 * time.Second

// newHTTP makes what dials. Its connections are HTTP/2 alone.
func (t *Transport) newHTTP() *http.Transport {
	h := &http.Transport{
		DialContext:            dialTCP,
		TLSClientConfig:        t.o.TLSConfig,
		TLSHandshakeTimeout:    t.o.DialTimeout,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true, // gRPC has its own
		Protocols:              new(http.Protocols),
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: t.o.Silence, PingTimeout: pingTimeout, WriteByteTimeout: t.o.WriteTimeout},
	}
	if t.o.TLSConfig != nil {
		h.Protocols.SetHTTP2(true)
	} else {
		h.Protocols.SetUnencryptedHTTP2(true)
	}
	return h
}

// channel is an HTTP/2 connection. Conns to the same address share it while it has room.
type channel struct {
	t    *Transport
	addr string
	base string // "http://host:port"
	http *http.ClientConn
	wire *wire

	awaited atomic.Int64 // streams for which there is to be room

	users int           // Conns; guarded by the Transport's lock
	gone  chan struct{} // closed when the connection has ended
	once  sync.Once
}

// Dial connects to addr, "host:port", or uses the connection to it that is there. In the clear it waits for the first bytes of the
// server: they tell that it speaks HTTP/2, and that it lives. A peer that does not gives an error that wraps transport.ErrProtocol.
func (t *Transport) Dial(ctx context.Context, addr string) (transport.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%w: dial %s: %w", transport.ErrNotSent, addr, err)
	}
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return nil, fmt.Errorf("%w: dial: address %q: %w", transport.ErrNotSent, addr, err)
	}
	if c := t.share(addr); c != nil {
		return newConn(c), nil
	}
	c, err := t.connect(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("%w: dial %s: %w", transport.ErrNotSent, addr, err)
	}
	t.mu.Lock()
	t.peers[addr] = append(t.peers[addr], c)
	t.mu.Unlock()
	return newConn(c), nil
}

// roomLeft is how many calls more a connection must take for a further Conn to share it: streams may come to it that last.
const roomLeft = 32

// share gives a connection to addr with room, nil where there is none.
func (t *Transport) share(addr string) *channel {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.peers[addr] {
		awaited := int(c.awaited.Load())
		if c.usable() && (c.http.Available()-awaited >= roomLeft || c.http.InFlight()+awaited == 0) {
			c.users++
			return c
		}
	}
	return nil
}

// release counts a Conn out. The last one closes the connection.
func (c *channel) release() {
	t := c.t
	t.mu.Lock()
	c.users--
	last := c.users == 0
	if last {
		if t.peers[c.addr] = slices.DeleteFunc(t.peers[c.addr], func(o *channel) bool { return o == c }); len(t.peers[c.addr]) == 0 {
			delete(t.peers, c.addr)
		}
	}
	t.mu.Unlock()
	if last {
		_ = c.http.Close()
		c.end()
	}
}

func (c *channel) end() { c.once.Do(func() { close(c.gone) }) }

// usable reports whether the connection takes new calls.
func (c *channel) usable() bool {
	return c.http.Available() > 0 && !c.wire.suspect()
}

// connect opens a connection.
func (t *Transport) connect(ctx context.Context, addr string) (*channel, error) {
	ctx, cancel := context.WithTimeout(ctx, t.o.DialTimeout)
	defer cancel()
	box := &dialled{}
	scheme := "http"
	if t.o.TLSConfig != nil {
		scheme = "https"
	}
	conn, err := t.http.NewClientConn(context.WithValue(ctx, dialledKey{}, box), scheme, addr)
	if err != nil {
		if ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
			err = errors.Join(ctx.Err(), err)
		}
		return nil, err
	}
	c := &channel{t: t, addr: addr, base: scheme + "://" + addr, http: conn, wire: box.wire, users: 1, gone: make(chan struct{})}
	conn.SetStateHook(func(cc *http.ClientConn) {
		if cc.Err() != nil {
			c.end()
		}
	})
	if conn.Err() != nil {
		c.end()
	}
	if scheme == "http" {
		err = c.greeted(ctx)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return c, nil
}

// greeted waits for the server's first frame, which is SETTINGS (RFC 9113 section 3.4).
func (c *channel) greeted(ctx context.Context) error {
	select {
	case <-c.wire.heard:
	case <-ctx.Done():
		return fmt.Errorf("the peer is connected, and says nothing: %w", ctx.Err())
	}
	switch first := c.wire.first; {
	case len(first) >= 4 && first[3] == frameSettings:
		return nil
	case bytes.HasPrefix(first, []byte("HTTP/")):
		return fmt.Errorf("%w: the peer speaks HTTP/1.1 alone, and no gRPC", transport.ErrProtocol)
	case len(first) == 0:
		return errors.New("the peer closed the connection, as servers of TLS do: those are called by grpcs")
	}
	return fmt.Errorf("%w: the peer does not speak HTTP/2: it began with %.20q", transport.ErrProtocol, c.wire.first)
}

// frameSettings is the type of a SETTINGS frame (RFC 9113 section 6.5).
const frameSettings = 4

type dialledKey struct{}

// dialled takes the TCP connection out of net/http's hands.
type dialled struct{ wire *wire }

// dialTCP is the http.Transport's DialContext.
func dialTCP(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	w := &wire{Conn: socket.Conn(nc), heard: make(chan struct{})}
	if box, ok := ctx.Value(dialledKey{}).(*dialled); ok {
		box.wire = w
	}
	return w, nil
}

// wire is the TCP connection, of which it is known when something came last. It sends the headers of a request, which net/http writes
// by themselves, together with what follows them: a unary call is one write then, and one packet.
type wire struct {
	net.Conn
	out   sync.Mutex
	held  []byte        // headers that wait for what follows
	heard chan struct{} // closed when the first bytes have come, or none will
	first []byte        // of those; set before heard is closed
	once  sync.Once

	last   atomic.Int64 // when something came last, in nanoseconds of the clock below
	doubts atomic.Int64 // when a call got no answer in time; 0: none
}

// began is where the clock of wires begins.
var began = time.Now()

func clock() int64 { return int64(time.Since(began)) + 1 }

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if n > 0 {
		w.last.Store(clock())
	}
	w.once.Do(func() {
		w.first = append(w.first, p[:min(n, 20)]...)
		close(w.heard)
	})
	return n, err
}

// The types and flags of frames that a wire looks at (RFC 9113 section 6.2).
const (
	frameHead       = 9
	frameHeaders    = 1
	flagEndStream   = 1
	flagEndHeaders  = 4
	maxHeldHeaders  = 16 << 10
	frameTypeOffset = 3
	frameFlagOffset = 4
)

// Write sends p, and the headers before it; or keeps p where it is the headers of a request whose message follows at once. That of a
// stream may not: its headers are sent by flush. Over TLS nothing looks like headers here.
func (w *wire) Write(p []byte) (int, error) {
	w.out.Lock()
	defer w.out.Unlock()
	if len(w.held) == 0 && isHeaders(p) {
		w.held = append(w.held, p...)
		return len(p), nil
	}
	if len(w.held) == 0 {
		return w.Conn.Write(p)
	}
	w.held = append(w.held, p...)
	if err := w.send(); err != nil {
		return 0, err
	}
	return len(p), nil
}

// flush sends headers that wait.
func (w *wire) flush() {
	w.out.Lock()
	defer w.out.Unlock()
	if len(w.held) > 0 {
		_ = w.send() // the next Write fails as well
	}
}

// send sends what is held. The caller holds the lock.
func (w *wire) send() error {
	_, err := w.Conn.Write(w.held)
	if w.held = w.held[:0]; cap(w.held) > 4*maxHeldHeaders {
		w.held = nil
	}
	return err
}

// isHeaders reports whether p is one frame, of all the headers of a request that has a body.
func isHeaders(p []byte) bool {
	return len(p) > frameHead && len(p) <= maxHeldHeaders && p[frameTypeOffset] == frameHeaders &&
		p[frameFlagOffset]&(flagEndStream|flagEndHeaders) == flagEndHeaders && int(p[0])<<16|int(p[1])<<8|int(p[2]) == len(p)-frameHead
}

// doubt notes that a call which began at start had no answer in its time. Where nothing at all has come since, the peer may have gone
// without a word: the next calls take another connection, until it is heard of again.
func (w *wire) doubt(start int64) {
	if w.last.Load() < start {
		w.doubts.Store(clock())
	}
}

// suspect reports whether the peer may have gone.
func (w *wire) suspect() bool {
	at := w.doubts.Load()
	return at != 0 && w.last.Load() < at
}
