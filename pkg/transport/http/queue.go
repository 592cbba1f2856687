package http

import (
	"net"

	"github.com/cb02dfca/micro/pkg/transport/http/internal/link"
	"github.com/cb02dfca/micro/pkg/transport/internal/unsent"
)

// newConn gives the connection of frames over nc. early is what was read behind the agreement on them.
func (t *Transport) newConn(nc net.Conn, early []byte, server bool) *link.Conn {
	unsent.Bound(nc)
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
		case interface{ NetConn() net.Conn }:
			nc = c.NetConn()
		default:
			return nil
		}
	}
}
