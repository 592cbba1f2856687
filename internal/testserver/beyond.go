package testserver

import (
	"net"
	"testing"

	"github.com/cb02dfca/micro/internal/netspace"
)

// Beyond is a server on a machine of its own, to which this process has ways that can be cut: each is an address of the same server.
type Beyond struct {
	// Addr is the server's address by a way that nobody cuts, host:port.
	Addr string

	site *netspace.Site
	port string
}

// NewBeyond starts a server for a test that runs netspace.Alone. It is killed at the end of the test.
func NewBeyond(t testing.TB, spec Spec) *Beyond {
	t.Helper()
	b := &Beyond{site: netspace.NewSite(t)}
	s := New(t.TempDir(), spec)
	_, b.port, _ = net.SplitHostPort(s.Addr)
	b.Addr, _ = b.Way()
	s.Addr, s.Listen, s.enter = b.Addr, net.JoinHostPort("0.0.0.0", b.port), b.site.Do
	t.Cleanup(func() { s.Stop("KILL") })
	s.MustStart(t)
	return b
}

// ListenBeyond is NewBeyond for a server in this process: listen is called on the machine, with the address to listen on, port 0, and
// gives the address that it became.
func ListenBeyond(t testing.TB, listen func(address string) (string, error)) *Beyond {
	t.Helper()
	b := &Beyond{site: netspace.NewSite(t)}
	check(t, b.site.Do(func() error {
		addr, err := listen("0.0.0.0:0")
		if err == nil {
			_, b.port, err = net.SplitHostPort(addr)
		}
		return err
	}))
	b.Addr, _ = b.Way()
	return b
}

// Way makes one more way to the server, and gives its address there.
func (b *Beyond) Way() (addr string, way *netspace.Way) {
	way = b.site.Way()
	return net.JoinHostPort(way.Host, b.port), way
}
