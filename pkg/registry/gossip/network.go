package gossip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"
)

// network is memberlist's own, whose connections end with Close, and which remembers why an address could not be reached.
type network struct {
	*memberlist.NetTransport
	life context.Context
	end  context.CancelFunc

	mu     sync.Mutex
	failed map[string]error // by address, for as long as a meeting is tried
}

const bindTries = 10 // of a free port, which UDP and TCP are to have

// listen binds an address.
func listen(host string, port int, log *journal) (*network, error) {
	config := &memberlist.NetTransportConfig{BindAddrs: []string{host}, BindPort: port, Logger: log.library()}
	var err error
	for range bindTries {
		var t *memberlist.NetTransport
		if t, err = memberlist.NewNetTransport(config); err == nil {
			n := &network{NetTransport: t, failed: map[string]error{}}
			n.life, n.end = context.WithCancel(context.Background())
			return n, nil
		}
		if port != 0 {
			break
		}
	}
	reason := err.Error()
	for _, known := range []error{syscall.EADDRINUSE, syscall.EADDRNOTAVAIL, syscall.EACCES} {
		if strings.Contains(reason, known.Error()) {
			err = known
		}
	}
	return nil, fmt.Errorf("registry: gossip: bind %s: %w", net.JoinHostPort(host, strconv.Itoa(port)), err)
}

// DialTimeout does what memberlist.Transport says.
func (n *network) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return n.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout does what memberlist.NodeAwareTransport says.
func (n *network) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(n.life, timeout)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", a.Addr)
	if err != nil {
		n.mu.Lock()
		defer n.mu.Unlock()
		if _, asked := n.failed[a.Addr]; asked {
			n.failed[a.Addr] = err
		}
		return nil, err
	}
	return &conn{c, context.AfterFunc(n.life, func() { _ = c.Close() })}, nil
}

// conn is a connection that ends with its network.
type conn struct {
	net.Conn
	forget func() bool
}

// Close does what net.Conn says.
func (c *conn) Close() error {
	c.forget()
	return c.Conn.Close()
}

// meet makes the member list exchange all that both know with the member at an address.
func (n *network) meet(list *memberlist.Memberlist, addr string) error {
	n.mu.Lock()
	n.failed[addr] = nil
	n.mu.Unlock()
	_, err := list.Join([]string{addr})
	n.mu.Lock()
	defer n.mu.Unlock()
	dial := n.failed[addr]
	delete(n.failed, addr)
	if err != nil && dial != nil {
		return dial
	}
	return err
}

// refused reports whether an error says that nobody listens, and inUse whether it says that somebody does. Windows has
// numbers of its own.
func refused(err error) bool { return is(err, syscall.ECONNREFUSED, 10061) }
func inUse(err error) bool   { return is(err, syscall.EADDRINUSE, 10048) }

func is(err error, unix, windows syscall.Errno) bool {
	return errors.Is(err, unix) || runtime.GOOS == "windows" && errors.Is(err, windows)
}

// text gives the reason of an error, of which the address is said already.
func text(err error) string {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		if sys := (syscall.Errno)(0); errors.As(op.Err, &sys) {
			return sys.Error()
		}
		return op.Err.Error()
	}
	lines := strings.Split(strings.TrimSpace(err.Error()), "\n")
	last := strings.TrimLeft(strings.TrimSpace(lines[len(lines)-1]), "* ") // memberlist's errors are a list
	if rest, ok := strings.CutPrefix(last, "failed to join "); ok {
		if _, why, found := strings.Cut(rest, ": "); found {
			last = why
		}
	}
	if last == "EOF" {
		return "it closed the connection: is it a member of a registry?"
	}
	return strings.TrimPrefix(last, "remote error: ")
}

// loopback reports whether an address is of this machine alone.
func loopback(ip netip.Addr) bool { return ip.Unmap().IsLoopback() }

// resolve gives the IP addresses of a host.
func resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip.Unmap()}, nil
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	for i := range ips {
		ips[i] = ips[i].Unmap()
	}
	return ips, err
}

// toward gives the address of this machine from which it would send to another. To connect a datagram socket sends nothing.
func toward(addr netip.AddrPort) (netip.Addr, error) {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return netip.Addr{}, err
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}

// ours reports whether an address is one of this machine.
func ours(ip netip.Addr) bool {
	if loopback(ip) {
		return true
	}
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if own, ok := netip.AddrFromSlice(n.IP); ok && own.Unmap() == ip {
				return true
			}
		}
	}
	return false
}
