package mdns

import (
	"net"
	"net/netip"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/mdns/internal/link"
)

var _ registry.Hoster = (*Registry)(nil)

// Hearsay says that a node which shows here no longer need not be dead: its owner does not learn who has lost sight of it. Package multi asks.
func (r *Registry) Hearsay() bool { return true }

// Host gives the IPv4 address under which the local network reaches this machine, as registry.Hoster says. Of the
// interfaces that nodes are announced on, loopback aside, it is that of the default route, else the first that has a
// peer, else the first. In Host scope, and where there is no such interface, ok is false. It looks at the interfaces as
// they are now, and sends nothing.
func (r *Registry) Host() (host string, ok bool) {
	if r.opts.Scope != LAN {
		return "", false
	}
	n, err := r.guard.network(0)
	if err != nil {
		return "", false
	}
	all, err := r.guard.hears(n)
	if err != nil {
		return "", false
	}
	way, best := routed(), 0
	for _, i := range beyond(r.guard.sends(all)) {
		if a, has := i.IPv4(); has {
			if rank := rank(i, a == way); rank > best {
				host, ok, best = a.String(), true, rank
			}
		}
	}
	return host, ok
}

// rank says how likely an interface leads to the local network. A tunnel may be the default route, and is not it.
func rank(i link.Interface, way bool) int {
	switch {
	case way && i.Flags&net.FlagPointToPoint == 0:
		return 3
	case i.Flags&net.FlagRunning != 0:
		return 2
	}
	return 1
}

// routed gives the address with which the system would send to far away, by the default route; the zero address where
// there is none. To connect a datagram socket sends nothing, and nobody has the address (RFC 5737).
func routed() netip.Addr {
	c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.1:9")))
	if err != nil {
		return netip.Addr{}
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr()
}
