//go:build !linux

package unsent

import "net"

// limit does nothing: the system cannot, or package unix does not know how.
func limit(*net.TCPConn, int) {}
