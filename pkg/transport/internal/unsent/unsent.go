// Package unsent bounds what the system keeps of a connection that it has not sent: what waits there stands before every
// message that comes after it, whatever those before were cut for.
package unsent

import (
	"net"

	"github.com/cb02dfca/micro/internal/hostcheck"
)

// size is that of two large frames.
const size = 128 << 10

// Bound keeps the system's queue of unsent bytes short. It is a matter of latency alone, so errors are not looked at.
//
// To a peer on this machine the send buffer is made that small, as nothing is under way between the two. To others that
// would bound the bytes under way, and so the throughput of a long line; there the unsent ones alone are bounded, where the
// system can (TCP_NOTSENT_LOWAT).
//
// nc is a connection over TCP, or over a layer that tells by NetConn what it is over, as TLS does; others are left as they are.
func Bound(nc net.Conn) {
	tc := tcpOf(nc)
	if tc == nil {
		return
	}
	if hostcheck.Loopback(tc.RemoteAddr().String()) {
		_ = tc.SetWriteBuffer(size)
		return
	}
	limit(tc, size)
}

func tcpOf(nc net.Conn) *net.TCPConn {
	for {
		switch c := nc.(type) {
		case *net.TCPConn:
			return c
		case interface{ NetConn() net.Conn }:
			nc = c.NetConn()
		default:
			return nil
		}
	}
}
