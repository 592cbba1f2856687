package http_test

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/broker/http"
)

// TestSlowHead: the broker's own listener cuts a peer that does not finish the head of its request.
func TestSlowHead(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t)
	b := newBroker(t, reg, http.Options{})
	subscribe(t, b, "topic", ignore)
	nc, err := net.Dial("tcp", onlyNode(t, reg).Address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = nc.Close() }()
	if _, err := io.WriteString(nc, "POST / HTTP/1.1\r\nHost: localhost\r\nX-Half"); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := nc.SetReadDeadline(start.Add(30 * time.Second)); err != nil { // the limit is 5 s; a busy machine may be late
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, nc); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("it was not cut within %v", time.Since(start))
	}
	if took := time.Since(start); took < 4*time.Second {
		t.Errorf("it was cut after %v, want about 5 s: by something else", took)
	}
}
