//go:build unix

package http

import (
	"net"
	"testing"
	"time"
)

// TestEnded: a connection that waits is looked at while somebody reads from it, as net/http does.
func TestEnded(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(*net.TCPConn){
		"closed": func(c *net.TCPConn) { c.Close() },
		"reset":  func(c *net.TCPConn) { _ = c.SetLinger(0); c.Close() },
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		nc, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		peer, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		read := make(chan error, 1)
		go func() {
			_, err := nc.Read(make([]byte, 1))
			read <- err
		}()
		if ended(nc) {
			t.Errorf("%s: it has ended before", name)
		}
		leave(peer.(*net.TCPConn))
		for begun := time.Now(); !ended(nc); {
			if time.Since(begun) > 5*time.Second {
				t.Fatalf("%s: it has not ended", name)
			}
		}
		<-read
		if !ended(nc) {
			t.Errorf("%s: it has ended no more", name)
		}
		nc.Close()
		l.Close()
	}
}
