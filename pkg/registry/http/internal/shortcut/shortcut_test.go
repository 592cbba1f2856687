package shortcut_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/internal/socket"
	"github.com/cb02dfca/micro/pkg/registry/http/internal/shortcut"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair is two servers that tell what they were asked: one with a shortcut, which tells it of paths below /quick/, and one without.
type pair struct {
	address [2]string
	quick   atomic.Int64 // answers of the shortcut

	mu    sync.Mutex
	idle  *sync.Cond // of mu
	under int        // requests that net/http has not done with
}

// settle waits until net/http has done with what it has answered, and waits for the next request. A request that comes before goes to net/http.
func (p *pair) settle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.under > 0 {
		p.idle.Wait()
	}
}

func (p *pair) count(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.under += n
	p.idle.Broadcast()
}

// tell is the answer to a request.
func tell(method, path, query, host, kind, authorization, lease string, body []byte) string {
	return fmt.Sprintf("%s %q %q %q %q %q %q %q", method, path, query, host, kind, authorization, lease, body)
}

func newPair(t testing.TB) *pair {
	t.Helper()
	p := &pair{}
	p.idle = sync.NewCond(&p.mu)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if r.URL.Path == "/stream" { // which nothing ends but the client
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			return
		}
		_, _ = io.WriteString(w, tell(r.Method, r.URL.EscapedPath(), r.URL.RawQuery, r.Host, r.Header.Get("Content-Type"),
			r.Header.Get("Authorization"), r.Header.Get("Micro-Lease"), body))
	})
	answer := func(dst []byte, r *shortcut.Request) ([]byte, bool) {
		if !bytes.HasPrefix(r.Path, []byte("/quick/")) {
			return nil, false
		}
		p.quick.Add(1)
		text := tell("PUT", string(r.Path), string(r.Query), string(r.Host), string(r.ContentType), string(r.Authorization), string(r.Lease), r.Body)
		return fmt.Appendf(dst, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text), true
	}
	var open sync.Map // of connections: is a request under way?
	for i := range p.address {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		p.address[i] = l.Addr().String()
		server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
		if i == 0 {
			quick := shortcut.Listen(socket.Listener(l), shortcut.Options{Answer: answer, Idle: 5 * time.Second, Read: 5 * time.Second, Write: 5 * time.Second})
			l, server.ConnState = quick, func(c net.Conn, state http.ConnState) {
				quick.ConnState(c, state)
				switch under, _ := open.Load(c); {
				case state == http.StateActive:
					open.Store(c, true)
					p.count(1)
				case under == true:
					open.Store(c, false)
					p.count(-1)
				}
			}
		}
		ended := make(chan error, 1)
		go func() { ended <- server.Serve(l) }()
		t.Cleanup(func() {
			_ = server.Close()
			if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
				t.Error(err)
			}
		})
	}
	return p
}

// talk sends messages to one of the servers, in pieces of a size. It waits for an answer after each, or sends all and then reads.
func (p *pair) talk(t testing.TB, which int, messages []string, piece int, wait bool) []string {
	t.Helper()
	c, err := net.Dial("tcp", p.address[which])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	var got []string
	r := bufio.NewReader(c)
	read := func() bool {
		rsp, err := http.ReadResponse(r, nil)
		if err != nil || rsp.StatusCode != http.StatusOK { // a refusal may not arrive, where its connection is closed over what was sent
			var late net.Error
			if errors.As(err, &late) && late.Timeout() {
				t.Errorf("server %d does not answer %q, in pieces of %d bytes", which, messages, piece)
			}
			got = append(got, "end")
			return false
		}
		defer rsp.Body.Close()
		body, err := io.ReadAll(rsp.Body)
		got = append(got, fmt.Sprint(string(body), " ", err))
		return err == nil
	}
	for i, message := range messages {
		if wait {
			p.settle()
		}
		for len(message) > 0 {
			n := min(piece, len(message))
			if _, err := io.WriteString(c, message[:n]); err != nil {
				break // the server has had enough
			}
			message = message[n:]
		}
		if last := i == len(messages)-1; last || wait {
			if last {
				_ = c.(*net.TCPConn).CloseWrite()
			}
			if !read() {
				return got
			}
		}
	}
	for read() {
	}
	return got
}

// same holds the two servers' answers against each other.
func (p *pair) same(t testing.TB, messages []string, piece int, wait bool) {
	t.Helper()
	with, without := p.talk(t, 0, messages, piece, wait), p.talk(t, 1, messages, piece, wait)
	if fmt.Sprint(with) != fmt.Sprint(without) {
		t.Errorf("%q, in pieces of %d bytes, waiting %t\n\twith    %q\n\twithout %q", messages, piece, wait, with, without)
	}
}

const (
	get   = "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"
	quick = "PUT /quick/a?ttl=30s HTTP/1.1\r\nHost: a:1\r\nUser-Agent: test\r\nContent-Type: application/json\r\nAuthorization: Bearer x\r\n" +
		"Micro-Lease: 00ff\r\nAccept-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello"
	slow = "PUT /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
)

// with gives quick with some of its text replaced.
func with(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(quick) }

func TestAnswersAreTheSame(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		messages []string
		quick    int64 // answers of the shortcut where the client waits
	}{
		"the first is net/http's": {[]string{quick, quick, quick}, 2},
		"among others":            {[]string{get, quick, slow, quick, get, quick}, 3},
		"small letters":           {[]string{get, with("Host", "host", "Content-L", "content-l", "Micro-Lease", "micro-lease"), quick}, 2},
		"kept":                    {[]string{get, with("Accept-Encoding: gzip", "Connection: Keep-Alive"), quick}, 2},
		"no body":                 {[]string{get, with("Content-Length: 5", "Content-Length: 0", "hello", ""), quick}, 2},
		"two at once":             {[]string{get, quick + quick, quick}, 3},
		"one and a half":          {[]string{get, quick + quick[:40], quick[40:], quick}, 3},
		"one and another":         {[]string{get, quick + get, quick}, 2},
		"another and one":         {[]string{get, get + quick, quick}, 0},
		"as large as can be":      {[]string{get, with("Content-Length: 5", "Content-Length: 3800", "hello", strings.Repeat("x", 3800)), quick}, 2},
		"too large":               {[]string{get, with("Content-Length: 5", "Content-Length: 5000", "hello", strings.Repeat("x", 5000)), quick}, 1},
		"another method":          {[]string{get, with("PUT", "POST"), quick}, 1},
		"another header":          {[]string{get, with("Micro-Lease", "X-Other"), quick}, 1},
		"an origin":               {[]string{get, with("Micro-Lease", "Origin"), quick}, 1},
		"the last":                {[]string{get, with("Accept-Encoding: gzip", "Connection: close"), quick}, 0},
		"the old protocol":        {[]string{get, with("HTTP/1.1", "HTTP/1.0"), quick}, 0},
		"a header twice":          {[]string{get, with("Accept-Encoding: gzip", "Micro-Lease: 11"), quick}, 1},
		"the host twice":          {[]string{get, with("Accept-Encoding: gzip", "Host: b"), quick}, 0},
		"the length twice":        {[]string{get, with("Accept-Encoding: gzip", "Content-Length: 5"), quick}, 0},
		"two lengths":             {[]string{get, with("Accept-Encoding: gzip", "Content-Length: 6"), quick}, 0},
		"a signed length":         {[]string{get, with("Length: 5", "Length: +5"), quick}, 0},
		"no length":               {[]string{get, with("Content-Length: 5\r\n", "", "hello", ""), quick}, 1},
		"chunks":                  {[]string{get, with("Content-Length: 5", "Transfer-Encoding: chunked", "hello", "5\r\nhello\r\n0\r\n\r\n"), quick}, 0},
		"chunks and a length":     {[]string{get, with("Accept-Encoding: gzip", "Transfer-Encoding: chunked", "hello", "5\r\nhello\r\n0\r\n\r\n"), quick}, 0},
		"is to be told to go on":  {[]string{get, with("Accept-Encoding: gzip", "Expect: nothing"), quick}, 0},
		"lines end otherwise":     {[]string{get, strings.ReplaceAll(quick, "\r\n", "\n"), quick}, 0},
		"one ends otherwise":      {[]string{get, with("User-Agent: test\r\n", "User-Agent: test\n"), quick}, 0},
		"a request in a header":   {[]string{"GET / HTTP/1.1\nHost: a\n\n" + quick, quick}, 0},
		"a folded line":           {[]string{get, with("gzip", "gzip,\r\n br"), quick}, 0},
		"white space":             {[]string{get, with("Host: a:1", "Host:  a:1 "), quick}, 2},
		"a tab":                   {[]string{get, with("Host: a:1", "Host:\ta:1"), quick}, 0},
		"a space before a colon":  {[]string{get, with("Content-Length:", "Content-Length :"), quick}, 0},
		"a space in the path":     {[]string{get, with("/quick/a", "/quick/a b"), quick}, 0},
		"no host":                 {[]string{get, with("Host: a:1\r\n", ""), quick}, 0},
		"nonsense":                {[]string{get, "nonsense\r\n\r\n", quick}, 0},
		"cut off in the head":     {[]string{get, quick[:60]}, 0},
		"cut off in the body":     {[]string{get, quick[:len(quick)-2]}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			got := int64(-1)
			for range 20 { // a client may be so quick that net/http has begun to read its next request: it is net/http's then
				before := p.quick.Load()
				p.same(t, c.messages, 1<<20, true)
				if got = p.quick.Load() - before; got >= c.quick {
					break
				}
			}
			if got != c.quick {
				t.Errorf("the shortcut gave %d answers, want %d", got, c.quick)
			}
			for _, piece := range []int{1, 7, 100} {
				p.same(t, c.messages, piece, true)
			}
			p.same(t, c.messages, 1<<20, false)
		})
	}
}

// TestPiecesAreWaitedFor: a request that comes in pieces is answered all the same.
func TestPiecesAreWaitedFor(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	got := int64(0)
	for range 20 { // as above
		before := p.quick.Load()
		p.talk(t, 0, []string{get, quick, quick}, 1<<20, true)
		if got = p.quick.Load() - before; got == 2 {
			break
		}
	}
	p.talk(t, 0, []string{get, quick[:2]}, 1<<20, true)
	if got != 2 {
		t.Errorf("%d answers, want 2", got)
	}
}

// TestStreamIsLeftAlone: a client that leaves a stream, or writes into it, does what it does without the shortcut.
func TestStreamIsLeftAlone(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.same(t, []string{get, quick, "GET /stream HTTP/1.1\r\nHost: a\r\n\r\n"}, 1<<20, true)
	p.same(t, []string{get, "GET /stream HTTP/1.1\r\nHost: a\r\n\r\n" + quick}, 1<<20, true)
}

// TestSilenceEndsAConnection: the times of the server count, of a client that sends nothing, and of one that sends half.
func TestSilenceEndsAConnection(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const short = 50 * time.Millisecond
	quickly := shortcut.Listen(l, shortcut.Options{Idle: short, Read: short, Write: short, Answer: func(dst []byte, _ *shortcut.Request) ([]byte, bool) {
		return append(dst, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"...), true
	}})
	idle := make(chan struct{}, 1)
	server := &http.Server{Handler: http.NotFoundHandler(), ReadTimeout: time.Minute, IdleTimeout: time.Minute, ConnState: func(c net.Conn, state http.ConnState) {
		if quickly.ConnState(c, state); state == http.StateIdle {
			idle <- struct{}{}
		}
	}}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(quickly) }()
	defer func() { _ = server.Close(); <-ended }()
	for _, messages := range [][]string{{get, quick}, {get, quick[:50]}, {get, quick, quick[:50]}} {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		r := bufio.NewReader(c)
		for _, message := range messages {
			if _, err := io.WriteString(c, message); err != nil {
				t.Fatal(err)
			}
			if len(message) == 50 {
				break
			}
			rsp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, rsp.Body)
			if message == get {
				<-idle // what comes before is net/http's
			}
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Errorf("after %d messages: %v", len(messages), err)
		}
		_ = c.Close()
	}
}

// FuzzAnswersAreTheSame has any bytes that follow a first request be answered as without the shortcut.
func FuzzAnswersAreTheSame(f *testing.F) {
	f.Add([]byte(quick+slow+quick), uint16(1000))
	f.Add([]byte(quick+quick+get+quick), uint16(3))
	f.Add([]byte(with("gzip", "gzip\r\nX: y")), uint16(300))
	p := newPair(f)
	f.Fuzz(func(t *testing.T, data []byte, piece uint16) {
		if len(data) > 10_000 || bytes.Contains(bytes.ToLower(data), []byte("expect")) { // 100-continue is told or not, as the body comes
			return
		}
		p.same(t, []string{get, string(data)}, int(piece)+1, true)
	})
}
