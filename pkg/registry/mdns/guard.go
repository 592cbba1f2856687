package mdns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/mdns/internal/link"
	"github.com/cb02dfca/micro/pkg/registry/mdns/internal/wire"
)

// relook is how old the known interfaces may be before a packet of an unknown sender has them read again.
const relook = 5 * time.Second

// guard knows the machine's interfaces, and decides by them whose packets and nodes are believed. mDNS proves no
// identity: a guard keeps other networks out, and in Host scope other machines, but not a liar on the same link.
type guard struct {
	scope Scope
	names []string // interfaces beside loopback; empty: all

	mu  sync.Mutex
	net *link.Network // nil: not read yet
}

// network gives the interfaces, read again if they are older than age.
func (g *guard) network(age time.Duration) (*link.Network, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.net != nil && time.Since(g.net.Taken) < age {
		return g.net, nil
	}
	n, err := link.Look()
	if err != nil {
		if g.net != nil {
			return g.net, nil
		}
		return nil, fmt.Errorf("%w: mdns: read the network interfaces: %w", registry.ErrUnavailable, err)
	}
	g.net = n
	return n, nil
}

// wants reports whether an interface is one of those that were asked for. Loopback always is: the processes of this
// machine find each other there.
func (g *guard) wants(i *link.Interface) bool {
	return i.Loopback() || len(g.names) == 0 || slices.Contains(g.names, i.Name)
}

// hears gives the interfaces to listen on, all in both scopes: go-micro's nodes of this machine announce themselves on
// whichever has the default route. The error says of each why not.
func (g *guard) hears(n *link.Network) ([]link.Interface, error) {
	var out []link.Interface
	var why []string
	for _, i := range n.Interfaces {
		switch reason := i.Why(); {
		case !g.wants(&i):
			why = append(why, i.Name+" is not asked for")
		case reason != "":
			why = append(why, i.Name+" "+reason)
		default:
			out = append(out, i)
		}
	}
	if len(g.names) > 0 && g.scope == LAN && !slices.ContainsFunc(out, func(i link.Interface) bool { return slices.Contains(g.names, i.Name) }) {
		out = nil // loopback alone is not what was asked for
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: mdns: no interface can be used: %s", registry.ErrUnavailable, strings.Join(why, ", "))
	}
	return out, nil
}

// sends gives those of the interfaces that packets leave by: loopback only, or in LAN scope all.
func (g *guard) sends(all []link.Interface) (out []link.Interface) {
	for _, i := range all {
		if g.scope == LAN || i.Loopback() {
			out = append(out, i)
		}
	}
	return out
}

// admit tells who sent a packet, or that it is not to be read. In Host scope only this machine is heard; in LAN scope a
// sender must stand on the link by which its packet came, so that nobody beyond a router is heard (RFC 6762 section 11).
func (g *guard) admit(p link.Packet) (source, bool) {
	from := p.From.Addr()
	if !from.Is4() || from.IsUnspecified() || from.IsMulticast() || p.From.Port() == 0 {
		return source{}, false
	}
	for _, age := range []time.Duration{time.Hour, relook} {
		n, err := g.network(age)
		if err != nil {
			return source{}, false
		}
		if n.Local(from) { // the kernel drops packets that come from outside with such an address
			return source{}, true
		}
		if g.scope == LAN && plausibleTTL(p.TTL) && g.onLink(n, p.Interface, from) {
			return source{addr: from}, true
		}
	}
	return source{}, false
}

// plausibleTTL refuses a packet whose TTL shows that a router has passed it on. RFC 6762 section 11 wants 255, but
// go-micro leaves its system's default in place: 1 for multicast, 64 or 128 for unicast.
func plausibleTTL(ttl int) bool {
	switch ttl {
	case 0, 255, 128, 64, 1: // 0: the system does not tell
		return true
	}
	return false
}

// onLink reports whether an address is in a subnet of an interface that is listened on.
func (g *guard) onLink(n *link.Network, index int, a netip.Addr) bool {
	for _, i := range n.Interfaces {
		if (index == 0 || index == i.Index) && g.wants(&i) && !i.Loopback() && n.OnLink(i.Index, a) {
			return true
		}
	}
	return false
}

// believes reports whether a node may stand at the address that was announced for it. A process of this machine speaks
// for this machine only. Another host speaks for itself or its subnet, never for an address of this machine: that would
// send our calls to our own ports.
func (g *guard) believes(p link.Packet, from source, f wire.Found) bool {
	if f.Gone {
		return true // it takes back what the same source has announced, no more
	}
	n, err := g.network(time.Hour)
	if err != nil {
		return false
	}
	a := f.Addr.Addr()
	switch {
	case a.IsUnspecified() || a.IsMulticast():
		return false
	case from.local():
		return n.Local(a) || g.fresh().Local(a)
	case n.Local(a):
		return false
	case a == from.addr:
		return true
	case a.IsLinkLocalUnicast() && a.Is4(): // 169.254.169.254 is a cloud's metadata server
		return false
	}
	return g.onLink(n, p.Interface, a)
}

// fresh gives the interfaces as they are now, or nearly.
func (g *guard) fresh() *link.Network {
	n, err := g.network(relook)
	if err != nil {
		return link.NewNetwork(nil, time.Time{})
	}
	return n
}
