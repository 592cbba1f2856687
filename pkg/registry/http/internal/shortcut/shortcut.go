// Package shortcut answers some requests on an HTTP/1.1 connection itself, before net/http sees them.
//
// To net/http a request costs two goroutines' wake-ups, four changes of deadlines and the making of a request, of headers and of a context:
// more than a hundred microseconds on a machine that is idle otherwise. What thousands of clients ask for all the time, in a few hundred bytes,
// is answered here within the Read by which net/http waits for the next request: it never hears of it.
//
// # When
//
// A request is offered to the Answer where nothing can be doubtful: net/http has answered a request of the connection before, and waits; the
// request begins where the one before ended; it is whole within what net/http reads at a time; it is a PUT of HTTP/1.1 with a
// Content-Length; and it has no header but those that are known here, each once. All else goes to net/http as it came, and so does what the
// Answer does not want. The length of those requests is read here as well, to know where the next one begins; on a connection where that is
// not certain, or whose client does not wait for answers, net/http has all that follows.
package shortcut

import (
	"net"
	"net/http"
	"time"
)

// An Answer appends the whole answer of a request to dst, beginning with its status line, or gives false: the request is net/http's then.
// It is called concurrently, for several connections.
type Answer func(dst []byte, r *Request) ([]byte, bool)

// Options of Listen. The times are those of the http.Server.
type Options struct {
	Answer Answer
	Idle   time.Duration // from one request to the next
	Read   time.Duration // for a request to come whole, once it has begun
	Write  time.Duration // for a client to take an answer
}

// Listener gives connections to an http.Server.
type Listener struct {
	net.Listener
	o Options
}

// Listen makes a listener of one. The http.Server that serves it has ConnState as its hook.
func Listen(l net.Listener, o Options) *Listener { return &Listener{Listener: l, o: o} }

// Accept waits for a connection.
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c, o: &l.o}, nil
}

// ConnState is for http.Server.ConnState.
func (l *Listener) ConnState(c net.Conn, state http.ConnState) {
	if c, ok := c.(*conn); ok && state == http.StateIdle && c.state == busy && c.left == 0 {
		c.state = idle
	}
}

// conn is a connection. Its state is for who reads: net/http reads on one goroutine at a time, and calls its hook on the same.
type conn struct {
	net.Conn
	o     *Options
	state state
	left  int64  // bytes of the present request that net/http is still to get
	first byte   // of a request that has begun
	out   []byte // storage of answers
}

// state is what the next byte begins, where none is left.
type state uint8

const (
	fresh  state = iota // the first request
	busy                // a request that comes before net/http has answered
	begun               // the second byte of such a request
	idle                // a request, of which net/http knows nothing
	theirs              // nothing that would be known here: net/http gets all
)

// Read gives net/http what it is to see. What is answered here goes through p as well.
func (c *conn) Read(p []byte) (int, error) {
	if c.left > 0 {
		n, err := c.Conn.Read(p[:min(int64(len(p)), c.left)])
		c.left -= int64(n)
		return n, err
	}
	n, err := c.Conn.Read(p)
	if c.state == idle {
		n, err = c.answer(p, n, err)
	}
	if n > 0 && c.state != theirs {
		c.pass(p[:n])
	}
	return n, err
}

// answer answers requests, of which the first n bytes are in p, until one comes that is not for here. It gives what there is of that.
func (c *conn) answer(p []byte, n int, err error) (int, error) {
	waiting := false // for the rest of a request
	for err == nil && n > 0 {
		took, more, failed := c.serve(p[:n], len(p))
		until := c.o.Read
		switch {
		case failed != nil:
			return 0, failed
		case took > 0:
			n, waiting, until = copy(p, p[took:n]), false, c.o.Idle
		case !more:
			return n, nil
		}
		if took > 0 && n > 0 {
			continue
		}
		if !waiting {
			waiting = took == 0
			if err := c.SetReadDeadline(time.Now().Add(until)); err != nil {
				return 0, err
			}
		}
		var add int
		add, err = c.Conn.Read(p[n:])
		n += add
	}
	return n, err
}

// serve answers the request that data begins with, and tells how long it is. more: it has not come whole, and may be one for here if it has no
// more than room bytes.
func (c *conn) serve(data []byte, room int) (took int, more bool, err error) {
	r, length, ok := parse(data)
	switch {
	case !ok || length > room:
		return 0, false, nil
	case length == 0 || length > len(data):
		return 0, len(data) < room, nil
	}
	r.Remote = c.RemoteAddr()
	out, ok := c.o.Answer(c.out[:0], &r)
	if !ok {
		return 0, false, nil
	}
	c.out = out
	if err := c.SetWriteDeadline(time.Now().Add(c.o.Write)); err != nil {
		return 0, false, err
	}
	if _, err := c.Write(out); err != nil {
		return 0, false, err
	}
	return length, false, nil
}

// pass notes that net/http gets data, with which a request begins, or goes on after its first byte. While net/http answers it reads one byte
// ahead, to see whether the client is still there, and some clients are quick enough to have sent that already.
func (c *conn) pass(data []byte) {
	switch {
	case c.state == busy && len(data) == 1:
		c.state, c.first = begun, data[0]
		return
	case c.state == begun:
		data = append([]byte{c.first}, data...)
	}
	length, ok := size(data)
	if !ok || c.state == busy || length < int64(len(data)) {
		c.state, c.out = theirs, nil
		return
	}
	c.state, c.left = busy, length-int64(len(data))
}
