package http

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// lateConn tells the system of a deadline only when a read or a write is about to wait for it, and only of an earlier one
// than the system has; when that has come, it tells of the next. net/http and the limits of this package set some ten
// deadlines for each request, nearly all of which lie ahead and are replaced before anything waits.
type lateConn struct {
	net.Conn
	reads, writes deadline
}

// deadline is that of one direction. Its methods may be called concurrently. tell is the system's own.
type deadline struct {
	mu      sync.Mutex
	want    time.Time // zero is none
	have    time.Time // what the system was told
	waiting int       // reads, or writes, under way
	settled bool      // the system is told at once
}

// longAgo is later than the time which net/http sets to end a read, and earlier than any other.
var longAgo = time.Unix(1000, 0)

func (c *lateConn) Read(p []byte) (n int, err error) {
	tell := c.Conn.SetReadDeadline
	if !c.reads.begin(tell) {
		return 0, os.ErrDeadlineExceeded
	}
	for again := true; again; again = c.reads.again(err, tell) {
		n, err = c.Conn.Read(p)
	}
	return n, err
}

func (c *lateConn) Write(p []byte) (n int, err error) {
	tell := c.Conn.SetWriteDeadline
	if !c.writes.begin(tell) {
		return 0, os.ErrDeadlineExceeded
	}
	for again := true; again; again = c.writes.again(err, tell) {
		var part int
		part, err = c.Conn.Write(p[n:])
		n += part
	}
	return n, err
}

// SetReadDeadline bounds the reads under way, and those to come.
func (c *lateConn) SetReadDeadline(t time.Time) error { return c.reads.set(t, c.Conn.SetReadDeadline) }

// SetWriteDeadline bounds the writes under way, and those to come.
func (c *lateConn) SetWriteDeadline(t time.Time) error {
	return c.writes.set(t, c.Conn.SetWriteDeadline)
}

// SetDeadline does both.
func (c *lateConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// settle has a listener's connection tell of each deadline at once from now on, for a user that reaches what is below it.
func settle(nc net.Conn) {
	if c, ok := nc.(*tls.Conn); ok {
		nc = c.NetConn()
	}
	if c, ok := nc.(*limitConn); ok {
		c.reads.settle(c.Conn.SetReadDeadline)
		c.writes.settle(c.Conn.SetWriteDeadline)
	}
}

func (d *deadline) set(t time.Time, tell func(time.Time) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.want = t
	if d.settled || d.waiting > 0 && d.earlier() {
		return d.told(tell)
	}
	return nil // a connection that has gone fails the next read or write
}

// begin counts a read or a write in; not where its time has long passed, as net/http has it for a read that is not to be.
func (d *deadline) begin(tell func(time.Time) error) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if passed(d.want) {
		return false
	}
	if passed(d.have) || d.earlier() {
		_ = d.told(tell) // a connection that has gone fails what follows
	}
	d.waiting++
	return true
}

// again reports whether the deadline that ended a read or a write was not its own; else it counts it out.
func (d *deadline) again(err error, tell func(time.Time) error) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil && errors.Is(err, os.ErrDeadlineExceeded) && (d.want.IsZero() || d.want.After(d.have)) && d.told(tell) == nil {
		return true
	}
	d.waiting--
	return false
}

func (d *deadline) settle(tell func(time.Time) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.settled = true
	_ = d.told(tell) // a connection that has gone fails what follows
}

// earlier reports whether want comes before what the system has.
func (d *deadline) earlier() bool {
	return !d.want.IsZero() && (d.have.IsZero() || d.want.Before(d.have))
}

func (d *deadline) told(tell func(time.Time) error) error {
	d.have = d.want
	return tell(d.want)
}

func passed(t time.Time) bool { return !t.IsZero() && t.Before(longAgo) }
