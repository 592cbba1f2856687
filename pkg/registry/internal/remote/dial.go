package remote

import (
	"net"
	"syscall"
	"time"
)

// How soon a peer that is silently gone is found out: a network that loses packets, or a machine without power, closes nothing.
const (
	idleTime   = 5 * time.Second // without a word from the peer it is asked for a sign of life,
	probeTime  = 2 * time.Second // and again
	probes     = 3               // so often
	unsentTime = 10 * time.Second
)

var keepAlive = net.KeepAliveConfig{Enable: true, Idle: idleTime, Interval: probeTime, Count: probes}

// Dialer makes TCP connections within a time, each of which fails when its peer gives no sign of life for idleTime and its probes, 11 s,
// or, on Linux, does not confirm what it was sent for 10 s. Without that TCP would wait for minutes, and for ever where nothing is sent.
func Dialer(timeout time.Duration) *net.Dialer {
	return &net.Dialer{
		Timeout:         timeout,
		KeepAliveConfig: keepAlive,
		Control:         boundUnsent,
	}
}

// Listener gives a listener whose connections, of TCP or of TLS over it, fail as those of Dialer do.
func Listener(l net.Listener) net.Listener { return listener{l} }

type listener struct{ net.Listener }

// tcpConn is what a *net.TCPConn has, and what embeds it.
type tcpConn interface {
	SetKeepAliveConfig(net.KeepAliveConfig) error
	syscall.Conn
}

// Accept waits for a connection, and sets its times. One that cannot be told stays as it is.
func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	inner := c
	if secured, ok := c.(interface{ NetConn() net.Conn }); ok {
		inner = secured.NetConn()
	}
	if tcp, ok := inner.(tcpConn); ok {
		_ = tcp.SetKeepAliveConfig(keepAlive)
		if raw, err := tcp.SyscallConn(); err == nil {
			_ = boundUnsent("tcp", "", raw)
		}
	}
	return c, err
}
