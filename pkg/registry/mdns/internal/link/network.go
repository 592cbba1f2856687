// Package link is what the mDNS registry knows of the machine's network: its interfaces and addresses, and sockets that
// send a multicast packet out of one interface and tell by which interface a packet came. IPv4 only.
package link

import (
	"net"
	"net/netip"
	"time"
)

// Interface is a network interface with its addresses.
type Interface struct {
	net.Interface
	Prefixes []netip.Prefix
}

// Loopback reports whether it is the machine's own loopback.
func (i *Interface) Loopback() bool { return i.Flags&net.FlagLoopback != 0 }

// IPv4 gives the address that packets leave the interface with.
func (i *Interface) IPv4() (netip.Addr, bool) {
	for _, p := range i.Prefixes {
		if p.Addr().Is4() {
			return p.Addr(), true
		}
	}
	return netip.Addr{}, false
}

// Why says why the interface cannot be used for multicast, or is empty. Loopback works without the MULTICAST flag,
// which Linux does not set on it.
func (i *Interface) Why() string {
	_, ok := i.IPv4()
	switch {
	case i.Flags&net.FlagUp == 0:
		return "is down"
	case !ok:
		return "has no IPv4 address"
	case i.Flags&(net.FlagMulticast|net.FlagLoopback) == 0:
		return "takes no multicast"
	}
	return ""
}

// Network is the machine's interfaces as they were at one moment. It does not change.
type Network struct {
	Interfaces []Interface
	Taken      time.Time
	local      map[netip.Addr]struct{}
}

// Look asks the system for the interfaces. One whose addresses cannot be read has none.
func Look() (*Network, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	out := make([]Interface, 0, len(all))
	for _, i := range all {
		out = append(out, Interface{Interface: i, Prefixes: prefixes(i)})
	}
	return NewNetwork(out, time.Now()), nil
}

// NewNetwork makes a network of given interfaces.
func NewNetwork(interfaces []Interface, taken time.Time) *Network {
	n := &Network{Interfaces: interfaces, Taken: taken, local: map[netip.Addr]struct{}{}}
	for _, i := range interfaces {
		for _, p := range i.Prefixes {
			n.local[p.Addr()] = struct{}{}
		}
	}
	return n
}

func prefixes(i net.Interface) []netip.Prefix {
	addrs, err := i.Addrs()
	if err != nil {
		return nil
	}
	var out []netip.Prefix
	for _, a := range addrs {
		ipnet, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		addr, ok := netip.AddrFromSlice(ipnet.IP)
		bits, _ := ipnet.Mask.Size()
		if addr = addr.Unmap(); ok && (addr.Is4() || addr.Is6()) {
			out = append(out, netip.PrefixFrom(addr, bits))
		}
	}
	return out
}

// Local reports whether a is one of the machine's own addresses, those of the loopback network included.
func (n *Network) Local(a netip.Addr) bool {
	_, ok := n.local[a]
	return ok || a.IsLoopback()
}

// OnLink reports whether a stands in a subnet of the interface with that index, so that it is reached without a router.
// Index zero, where the system does not tell by which interface a packet came, asks all of them.
func (n *Network) OnLink(index int, a netip.Addr) bool {
	for _, i := range n.Interfaces {
		if index != 0 && i.Index != index {
			continue
		}
		for _, p := range i.Prefixes {
			if p.Contains(a) {
				return true
			}
		}
	}
	return false
}
