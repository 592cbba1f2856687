//go:build !linux

package http

import "net"

// boundUnsent does nothing: the system cannot, or package unix does not know how.
func boundUnsent(*net.TCPConn, int) {}
