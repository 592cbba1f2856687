//go:build !linux

package remote

import "syscall"

// boundUnsent leaves it to requests' own times.
func boundUnsent(string, string, syscall.RawConn) error { return nil }
