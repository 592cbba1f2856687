// Package mucp reads and writes the messages of go-micro's HTTP transport. They are HTTP requests one way and HTTP responses the
// other, on a connection that carries them in any number and order: no response belongs to a request. docs/protocol.md says what stands
// in them.
package mucp

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"sync"
	"time"
)

// EOS is the value of Micro-Error that ends a stream in order.
const EOS = "EOS"

// Limits bound what a peer may send, and how long it may take. All are above zero.
type Limits struct {
	Head     int           // bytes of a message's head
	Body     int           // bytes of a message's body
	HeadTime time.Duration // from the first byte of a head to its last
	BodyIdle time.Duration // without a byte within a body
	BodyTime time.Duration // from the end of a head to that of its body
}

// Errors of reading, to be asked for with [errors.Is]. After each but ErrBodyTooLarge the connection cannot be read any more.
var (
	// ErrMalformed: what came is no message.
	ErrMalformed = errors.New("mucp: malformed message")
	// ErrHeadTooLarge: a head, or the trailer of a body, is over its limit.
	ErrHeadTooLarge = errors.New("mucp: the head is too large")
	// ErrBodyTooLarge: a body is over its limit. Skip goes on to the next message.
	ErrBodyTooLarge = errors.New("mucp: the body is too large")
)

// bufferSize is that of what is read ahead, in bytes.
const bufferSize = 4 << 10

// growth is how much storage a body gets at least for what is still to come, and at most before it has come, in bytes.
const growth = 32 << 10

// Reader reads the messages of one side from a connection. A message is read by Request or Response, and then Body or Skip. Its
// methods are for one goroutine, but for Until.
type Reader struct {
	nc     net.Conn
	limits Limits
	br     *bufio.Reader // of what source gives
	source source

	raw   []byte // the latest head
	lines bytes.Reader
	parse *bufio.Reader // of raw

	// Of the body that comes next.
	length  int64 // below zero: it tells its end by itself
	chunked bool  // by chunks; else by the end of the connection

	mu      sync.Mutex
	waiting bool // for the first byte of a message
	until   time.Time
}

// source is a connection that is read within the times of what is being read.
type source struct {
	nc   net.Conn
	idle time.Duration // zero: only end bounds a read
	end  time.Time     // zero: the deadline is left alone
}

func (s *source) Read(p []byte) (int, error) {
	if !s.end.IsZero() {
		end := s.end
		if next := time.Now().Add(s.idle); s.idle > 0 && next.Before(end) {
			end = next
		}
		_ = s.nc.SetReadDeadline(end) // fails on a connection that has gone, as the read does
	}
	return s.nc.Read(p)
}

// NewReader gives a Reader of nc. early is what was read of it already; it is not retained.
func NewReader(nc net.Conn, early []byte, l Limits) *Reader {
	r := &Reader{nc: nc, limits: l, source: source{nc: nc}, parse: bufio.NewReader(nil)}
	r.br = bufio.NewReaderSize(io.MultiReader(bytes.NewReader(bytes.Clone(early)), &r.source), bufferSize)
	if len(early) == 0 {
		r.br.Reset(&r.source)
	}
	return r
}

// Until bounds the wait for the first byte of a message, of that under way and of those to come. Zero is no bound. It may be called by any
// goroutine.
func (r *Reader) Until(t time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.until = t
	if r.waiting {
		_ = r.nc.SetReadDeadline(t) // fails on a connection that has gone, as the read does
	}
}

// Unread gives what was read of the connection and belongs to no message yet, and before it the latest head, whose body was not read. It
// is for who goes on with the connection in another way.
func (r *Reader) Unread() []byte {
	ahead, _ := r.br.Peek(r.br.Buffered()) // it is there
	return append(bytes.Clone(r.raw), ahead...)
}

// Wait waits for the first byte of a message. io.EOF is the end of the connection.
func (r *Reader) Wait() error {
	if r.br.Buffered() > 0 {
		return nil
	}
	r.source.idle, r.source.end = 0, time.Time{}
	r.await(true)
	_, err := r.br.Peek(1)
	r.await(false)
	return err
}

func (r *Reader) await(waiting bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = waiting
	if waiting {
		_ = r.nc.SetReadDeadline(r.until) // fails on a connection that has gone, as the read does
	}
}

// head reads a head into raw. io.EOF is the end of the connection before it.
func (r *Reader) head() error {
	r.raw = r.raw[:0]
	if err := r.Wait(); err != nil {
		return err
	}
	r.source.end = time.Now().Add(r.limits.HeadTime)
	for {
		ended, err := r.line()
		switch {
		case errors.Is(err, io.EOF):
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		case ended:
			r.source.end = time.Now().Add(r.limits.BodyTime)
			r.source.idle = r.limits.BodyIdle
			return nil
		}
	}
}

// line appends a line, or a part of one, to raw, and reports whether it is the empty one.
func (r *Reader) line() (ended bool, err error) {
	begins := len(r.raw) == 0 || r.raw[len(r.raw)-1] == '\n'
	part, err := r.br.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		err = nil
	}
	if len(r.raw)+len(part) > r.limits.Head {
		return false, ErrHeadTooLarge
	}
	r.raw = append(r.raw, part...)
	empty := len(part) == 1 && part[0] == '\n' || len(part) == 2 && part[0] == '\r' && part[1] == '\n'
	return begins && empty, err
}

// parser gives raw to be parsed.
func (r *Reader) parser() *bufio.Reader {
	r.lines.Reset(r.raw)
	r.parse.Reset(&r.lines)
	return r.parse
}

// Request reads the head of a request. Its body is for the Reader to read. io.EOF is the end of the connection before it, and an error
// that is os.ErrDeadlineExceeded says that it did not come in time.
func (r *Reader) Request() (*http.Request, error) {
	if err := r.head(); err != nil {
		return nil, err
	}
	req, err := http.ReadRequest(r.parser())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	req.Body = http.NoBody
	if req.ProtoMajor != 1 {
		return nil, fmt.Errorf("%w: HTTP version %.20q", ErrMalformed, req.Proto)
	}
	if n := count(r.raw, "host"); n > 1 || n == 0 && req.ProtoMinor > 0 {
		return nil, fmt.Errorf("%w: it has %d Host headers", ErrMalformed, n)
	}
	return req, r.framed(req.TransferEncoding, req.ContentLength)
}

// Response reads the head of a response, as Request does that of a request. Those that only say that another follows are skipped.
func (r *Reader) Response() (*http.Response, error) {
	for {
		if err := r.head(); err != nil {
			return nil, err
		}
		rsp, err := http.ReadResponse(r.parser(), nil)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		rsp.Body = http.NoBody
		if rsp.StatusCode >= 100 && rsp.StatusCode < 200 && rsp.StatusCode != http.StatusSwitchingProtocols {
			continue
		}
		return rsp, r.framed(rsp.TransferEncoding, rsp.ContentLength)
	}
}

// framed says how the end of the body is found. One that could be found in two ways is refused: those who pass the message on may have
// found another (RFC 9112 section 6.3).
func (r *Reader) framed(encodings []string, length int64) error {
	r.length, r.chunked = length, len(encodings) > 0
	if r.chunked && count(r.raw, "content-length") > 0 {
		return fmt.Errorf("%w: both a Transfer-Encoding and a Content-Length", ErrMalformed)
	}
	return nil
}

// Body appends the body of the latest message to dst. It is read once.
func (r *Reader) Body(dst []byte) ([]byte, error) {
	switch {
	case r.length > int64(r.limits.Body):
		return dst, fmt.Errorf("%w: %d bytes, over the limit of %d", ErrBodyTooLarge, r.length, r.limits.Body)
	case r.length >= 0:
		dst, err := r.fixed(dst, int(r.length))
		r.length = 0
		return dst, err
	}
	body := io.Reader(r.br)
	if r.chunked {
		body = httputil.NewChunkedReader(r.br)
	}
	dst, err := r.open(dst, body)
	if err == nil && r.chunked {
		err = r.trailer()
	}
	r.length = 0
	return dst, err
}

// fixed appends n bytes to dst, whose storage grows with what has come.
func (r *Reader) fixed(dst []byte, n int) ([]byte, error) {
	for n > 0 {
		part := min(n, max(growth, cap(dst)-len(dst)))
		dst = slices.Grow(dst, part)
		got, err := io.ReadFull(r.br, dst[len(dst):len(dst)+part])
		dst = dst[:len(dst)+got]
		n -= got
		if err != nil {
			return dst, unexpected(err)
		}
	}
	return dst, nil
}

// open appends what body gives, to its end.
func (r *Reader) open(dst []byte, body io.Reader) ([]byte, error) {
	limit := len(dst) + r.limits.Body
	for {
		dst = slices.Grow(dst, bytes.MinRead)
		n, err := body.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		switch {
		case len(dst) > limit:
			return dst, fmt.Errorf("%w: over %d bytes in chunks", ErrBodyTooLarge, r.limits.Body)
		case errors.Is(err, io.EOF):
			return dst, nil
		case err != nil && r.chunked:
			return dst, chunks(err)
		case err != nil:
			return dst, err
		}
	}
}

// trailer skips what follows the last chunk.
func (r *Reader) trailer() error {
	r.raw = r.raw[:0]
	for {
		ended, err := r.line()
		if err != nil || ended {
			return unexpected(err)
		}
	}
}

// Skip reads over the body of the latest message, which nobody wants or Body found too large. False is one that is not worth it, or has
// not come: the connection cannot be read any more.
func (r *Reader) Skip() bool {
	if r.length < 0 || r.length > 2*int64(r.limits.Body) {
		return false
	}
	n, err := io.CopyN(io.Discard, r.br, r.length)
	r.length -= n
	return err == nil
}

// unexpected makes the end of the connection one within a message.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// chunks tells chunks that are malformed from a connection that has failed.
func chunks(err error) error {
	var network net.Error
	if errors.As(err, &network) || errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrMalformed, err)
}

// count counts the headers of a name in a head. The name is in lower case.
func count(head []byte, name string) (n int) {
	for line := range bytes.Lines(head) {
		if len(line) > len(name) && line[len(name)] == ':' && bytes.EqualFold(line[:len(name)], []byte(name)) {
			n++
		}
	}
	return n
}

// Chunked gives a copy of the head at the beginning of a connection that gave first and then data, where that is all of a head, which says that the
// body comes in chunks and no other length. first ends within the first line.
func Chunked(first, data []byte) []byte {
	end := bytes.Index(data, []byte("\r\n\r\n"))
	if end < 0 || count(data[:end], "transfer-encoding") != 1 || count(data[:end], "content-length") > 0 || bytes.IndexByte(first, '\n') >= 0 {
		return nil
	}
	return append(bytes.Clone(first), data[:end+4]...)
}
