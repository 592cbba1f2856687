//go:build !unix

package link

import (
	"errors"
	"net"
	"syscall"
)

// errWouldBlock says that the system would have to wait.
var errWouldBlock = errors.New("link: would block")

// rawOf gives nothing: sockets of this system are read and written by package net alone.
func rawOf(*net.TCPConn) syscall.RawConn { return nil }

// vector stays empty: chunks are written one by one.
type vector [][]byte

func (w *writer) writeRaw(uintptr) bool { return true }

func (in *input) readRaw(uintptr) bool { return true }
