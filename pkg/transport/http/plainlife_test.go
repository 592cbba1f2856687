package http

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/transport"
)

// TestPlainLifetime: no connection to go-micro carries calls for longer than its lifetime, and none is left after Close.
func TestPlainLifetime(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	var conns atomic.Int32
	work.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			conns.Add(1)
			work.Go(func() { echoEmpty(nc) })
		}
	})
	tr, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	c := newPlainConn(tr, l.Addr().String())
	c.foreign, c.lifetime = true, 10*time.Millisecond
	calls := 0
	for begun := time.Now(); conns.Load() < 4 && time.Since(begun) < 10*time.Second; calls++ {
		var rsp transport.Message
		req := &transport.Message{Header: metadata.Of(transport.HeaderEndpoint, "Say.Hello", transport.HeaderContentType, "application/json")}
		if err := c.Call(t.Context(), req, &rsp); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	l.Close()
	work.Wait() // until each connection has ended
	if n := conns.Load(); n < 4 || int(n) > calls {
		t.Errorf("%d connections for %d calls, one after the other", n, calls)
	}
}

// echoEmpty answers what comes on a connection.
func echoEmpty(nc net.Conn) {
	defer nc.Close()
	in := bufio.NewReader(nc)
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprint(nc, "HTTP/1.1 200 OK\r\nUser-Agent: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
	}
}
