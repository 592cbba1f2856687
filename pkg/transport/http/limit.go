package http

import (
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/cb02dfca/micro/internal/socket"
	"github.com/cb02dfca/micro/pkg/transport/http/internal/mucp"
)

// limitListener closes connections beyond a number of them at once: a peer learns that without waiting.
type limitListener struct {
	net.Listener
	limit int
	log   *slog.Logger

	close    sync.Once // both the Listener and its http.Server close it
	closeErr error

	mu     sync.Mutex
	held   int
	warned time.Time
}

func newLimitListener(ln net.Listener, limit int, log *slog.Logger) *limitListener {
	return &limitListener{Listener: ln, limit: limit, log: log}
}

// Accept waits for the next connection within the limit.
func (l *limitListener) Accept() (net.Conn, error) {
	for {
		nc, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.take() {
			return &limitConn{lateConn: lateConn{Conn: socket.Conn(nc)}, listener: l}, nil
		}
		nc.Close()
	}
}

// Close frees the address. A second Close does nothing.
func (l *limitListener) Close() error {
	l.close.Do(func() { l.closeErr = l.Listener.Close() })
	return l.closeErr
}

// take counts a connection in, or logs every ten seconds that there are too many.
func (l *limitListener) take() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held < l.limit {
		l.held++
		return true
	}
	if now := time.Now(); now.Sub(l.warned) > 10*time.Second {
		l.warned = now
		l.log.Warn("transport/http: connections are refused: the limit is reached", "address", l.Addr().String(), "limit", l.limit)
	}
	return false
}

// limitConn counts itself out when it is closed.
type limitConn struct {
	lateConn
	listener *limitListener
	once     sync.Once
	early    []byte // what was read already, and is to be read once more

	// Of the first reads, of which net/http's is as long as the preface of HTTP/2.
	preface [24]byte
	begun   int    // bytes in preface; below zero after the reads that count
	chunked []byte // the connection's first head, where they gave all of it and its body comes in chunks
}

func (c *limitConn) Read(p []byte) (int, error) {
	if len(c.early) > 0 {
		n := copy(p, c.early)
		c.early = c.early[n:]
		return n, nil
	}
	n, err := c.lateConn.Read(p)
	if c.begun >= 0 && n > 0 {
		c.begins(p[:n])
	}
	return n, err
}

// begins looks at what the first reads gave.
func (c *limitConn) begins(p []byte) {
	if c.begun == 0 && len(p) <= len(c.preface) {
		c.begun = copy(c.preface[:], p)
		return
	}
	c.chunked = mucp.Chunked(c.preface[:c.begun], p)
	c.begun = -1
}

// NetConn gives what is below.
func (c *limitConn) NetConn() net.Conn { return c.Conn }

func (c *limitConn) Close() error {
	c.once.Do(func() {
		c.listener.mu.Lock()
		c.listener.held--
		c.listener.mu.Unlock()
	})
	return c.Conn.Close()
}

// CloseWrite ends the sending direction alone, as net/http does after it refused a body that is still coming.
func (c *limitConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
