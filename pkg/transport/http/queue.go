package http

import (
	"crypto/tls"
	"net"

	"github.com/cb02dfca/micro/internal/hostcheck"
	"github.com/cb02dfca/micro/pkg/transport/http/internal/link"
)

// sendQueue bounds what the system keeps of a frames connection that it has not sent: two large frames. What waits
// there stands before every frame that comes after it, whatever the frames were cut for.
const sendQueue = 128 << 10

// boundQueue keeps the system's queue of unsent bytes short. It is a matter of latency alone, so errors are not looked at.
//
// To a peer on this machine the send buffer is made that small, as nothing is under way between the two. To others that
// would bound the bytes under way, and so the throughput of a long line; there the unsent ones alone are bounded, where the
// system can (TCP_NOTSENT_LOWAT).
func boundQueue(nc net.Conn) {
	tc := tcpOf(nc)
	switch {
	case tc == nil:
	case hostcheck.Loopback(tc.RemoteAddr().String()):
		_ = tc.SetWriteBuffer(sendQueue)
	default:
		boundUnsent(tc, sendQueue)
	}
}

// newConn gives the connection of frames over nc. early is what was read behind the agreement on them.
func (t *Transport) newConn(nc net.Conn, early []byte, server bool) *link.Conn {
	boundQueue(nc)
	tcp := tcpOf(nc)
	if t.o.TLSConfig != nil {
		tcp = nil // what is written is not what is sent
	}
	return link.New(nc, tcp, &t.link, early, server)
}

// tcpOf gives the TCP connection below nc; nil where there is none.
func tcpOf(nc net.Conn) *net.TCPConn {
	for {
		switch c := nc.(type) {
		case *net.TCPConn:
			return c
		case *tls.Conn:
			nc = c.NetConn()
		case *limitConn:
			nc = c.Conn
		default:
			return nil
		}
	}
}
