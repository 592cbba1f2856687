package link

import (
	"context"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"golang.org/x/net/ipv4"
)

// Port is the port of mDNS (RFC 6762 section 2).
const Port = 5353

// receiveBuffer is asked for: a hundred processes may answer at once. The system gives what it allows.
const receiveBuffer = 4 << 20

// Group is the IPv4 multicast group of mDNS (RFC 6762 section 3). Routers never forward it.
func Group() netip.Addr { return netip.AddrFrom4([4]byte{224, 0, 0, 251}) }

// Packet is one datagram.
type Packet struct {
	Data []byte // a part of the reader's buffer
	From netip.AddrPort
	// To, Interface and TTL are zero where the system does not tell.
	To        netip.Addr
	Interface int
	TTL       int
}

// Conn is a UDP socket. One goroutine reads, any may send.
type Conn struct {
	p       *ipv4.PacketConn
	perSend bool // the system takes interface and source with each packet

	mu   sync.Mutex // of the socket's options, which hold for one packet
	hops int
	loop bool
}

// Listen opens the socket that hears multicast. It shares port 5353 with other responders of the machine and has joined
// no group yet.
func Listen(ctx context.Context) (*Conn, error) {
	// With a multicast address package net sets what shares the port, and binds to all addresses.
	return open(ctx, netip.AddrPortFrom(Group(), Port))
}

// Ask opens a socket of a free port for questions, whose answers come to it alone. At a loopback address it cannot be
// reached from elsewhere.
func Ask(ctx context.Context, from netip.Addr) (*Conn, error) {
	return open(ctx, netip.AddrPortFrom(from, 0))
}

func open(ctx context.Context, at netip.AddrPort) (*Conn, error) {
	var config net.ListenConfig
	pc, err := config.ListenPacket(ctx, "udp4", at.String())
	if err != nil {
		return nil, err
	}
	udp := pc.(*net.UDPConn)
	_ = udp.SetReadBuffer(receiveBuffer)
	onlyOwnGroups(udp)
	c := &Conn{p: ipv4.NewPacketConn(udp), hops: -1, loop: true, perSend: runtime.GOOS == "linux"}
	// Windows tells none of these. What needs them does without.
	_ = c.p.SetControlMessage(ipv4.FlagTTL|ipv4.FlagInterface|ipv4.FlagDst, true)
	_ = c.p.SetTTL(255) // RFC 6762 section 11
	return c, nil
}

// Join makes the socket hear the group on an interface.
func (c *Conn) Join(i *Interface) error {
	return c.p.JoinGroup(&i.Interface, &net.UDPAddr{IP: Group().AsSlice()})
}

// Leave undoes Join.
func (c *Conn) Leave(i *Interface) error {
	return c.p.LeaveGroup(&i.Interface, &net.UDPAddr{IP: Group().AsSlice()})
}

// Close ends Read.
func (c *Conn) Close() error { return c.p.Close() }

// SetReadDeadline bounds the next Read.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.p.SetReadDeadline(t) }

// Read waits for a packet.
func (c *Conn) Read(buf []byte) (Packet, error) {
	n, cm, from, err := c.p.ReadFrom(buf)
	if err != nil {
		return Packet{}, err
	}
	p := Packet{Data: buf[:n]}
	if udp, ok := from.(*net.UDPAddr); ok {
		a := udp.AddrPort()
		p.From = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	}
	if cm != nil {
		p.Interface, p.TTL = cm.IfIndex, cm.TTL
		if to, ok := netip.AddrFromSlice(cm.Dst); ok {
			p.To = to.Unmap()
		}
	}
	return p, nil
}

// Send sends a packet to one address.
func (c *Conn) Send(packet []byte, to netip.AddrPort) error {
	_, err := c.p.WriteTo(packet, nil, net.UDPAddrFromAddrPort(to))
	return err
}

// Multicast sends a packet to the group, out of one interface and with its address: without a default route the system
// would choose neither. On other interfaces than loopback the machine's own sockets get no copy.
func (c *Conn) Multicast(packet []byte, i *Interface) error {
	return c.multicast(packet, i, 255, i.Loopback())
}

// MulticastInside sends a packet to those sockets of this machine that hear the group on an interface. Nothing leaves
// the machine: it is sent with a TTL of zero (RFC 1112 section 6.1).
func (c *Conn) MulticastInside(packet []byte, i *Interface) error {
	return c.multicast(packet, i, 0, true)
}

func (c *Conn) multicast(packet []byte, i *Interface, hops int, loop bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hops != hops {
		if err := c.p.SetMulticastTTL(hops); err != nil {
			return err
		}
		c.hops = hops
	}
	if c.loop != loop {
		if err := c.p.SetMulticastLoopback(loop); err != nil {
			return err
		}
		c.loop = loop
	}
	var cm *ipv4.ControlMessage
	if c.perSend {
		cm = &ipv4.ControlMessage{IfIndex: i.Index}
		if src, ok := i.IPv4(); ok {
			cm.Src = src.AsSlice()
		}
	} else if err := c.p.SetMulticastInterface(&i.Interface); err != nil {
		return err
	}
	_, err := c.p.WriteTo(packet, cm, &net.UDPAddr{IP: Group().AsSlice(), Port: Port})
	return err
}
