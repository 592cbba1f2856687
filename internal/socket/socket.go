// Package socket reads and writes TCP sockets without leave of the Go scheduler, where that can be done.
//
// A system call of package syscall gives its processor away for the case that it waits. One on a socket that does not wait, as all of package
// net are, only copies, as any other code does; all the same the scheduler's monitor comes upon many of these calls, and has another
// thread wake up, take the processor over, and find nothing to do. In a process that is idle most of the time each of them wakes the
// monitor, too. docs/speed.md says what that costs.
//
// On Linux the calls are made without telling the scheduler, up to 1 MiB at a time: what is longer takes a tenth of a millisecond and
// more, in which others should have the processor. Other systems are entered by their library alone, and the race detector has to be told
// what the system reads and writes: there all is as package syscall has it.
package socket

import "net"

// Conn gives a connection that is nc, but for how it reads and writes; nc itself where that is not to be had. Its errors are those that
// nc would give. The *net.TCPConn below it is what NetConn gives.
func Conn(nc net.Conn) net.Conn {
	if tcp, ok := nc.(*net.TCPConn); ok {
		return direct(tcp)
	}
	return nc
}

// Listener gives a listener whose connections are as those of [Conn].
func Listener(l net.Listener) net.Listener { return listener{l} }

type listener struct{ net.Listener }

func (l listener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return Conn(nc), nil
}
