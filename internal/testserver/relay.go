package testserver

import (
	"io"
	"net"
	"sync"
	"testing"
)

// Relay is a way to a server that can be blocked: what is under way breaks off. Before several servers it balances: each connection goes to
// the next one that takes it. Its methods may be called concurrently.
type Relay struct {
	Addr    string // where it listens
	targets []string
	l       net.Listener
	busy    sync.WaitGroup

	mu    sync.Mutex
	turn  int // counts connections
	conns map[net.Conn]bool
	gate  chan struct{} // not nil: new connections wait until it is closed
	cut   bool          // new connections are refused
}

// NewRelay makes a way to targets, each host:port, until the end of the test.
func NewRelay(t testing.TB, targets ...string) *Relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Relay{Addr: l.Addr().String(), targets: targets, l: l, conns: map[net.Conn]bool{}}
	p.busy.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close()
		p.Kill()
		p.busy.Wait()
	})
	return p
}

func (p *Relay) accept() {
	for {
		c, err := p.l.Accept()
		if err != nil {
			return
		}
		p.busy.Go(func() { p.serve(c) })
	}
}

func (p *Relay) serve(c net.Conn) {
	defer c.Close()
	p.mu.Lock()
	gate := p.gate
	p.mu.Unlock()
	if gate != nil {
		<-gate
	}
	out, err := p.dial()
	if err != nil {
		return
	}
	defer out.Close()
	if !p.add(c, out) {
		return
	}
	defer p.remove(c, out)
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(c, out)
		_ = c.Close()
	})
	_, _ = io.Copy(out, c)
	_ = out.Close()
	back.Wait()
}

// dial gives a connection to the server whose turn it is, or to the next one that takes it.
func (p *Relay) dial() (c net.Conn, err error) {
	p.mu.Lock()
	first := p.turn
	p.turn++
	p.mu.Unlock()
	for i := range p.targets {
		if c, err = net.Dial("tcp", p.targets[(first+i)%len(p.targets)]); err == nil {
			return c, nil
		}
	}
	return nil, err
}

func (p *Relay) add(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		p.conns[c] = true
	}
	return !p.cut
}

func (p *Relay) remove(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		delete(p.conns, c)
	}
}

// Kill breaks all connections off, and every one that comes later.
func (p *Relay) Kill() {
	p.Release()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
	p.breakOff()
}

// Revive lets connections through again.
func (p *Relay) Revive() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = false
}

// Hold breaks all connections off, and keeps those that come later waiting until release.
func (p *Relay) Hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gate = make(chan struct{})
	p.breakOff()
}

// Release ends Hold.
func (p *Relay) Release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gate != nil {
		close(p.gate)
		p.gate = nil
	}
}

func (p *Relay) breakOff() {
	for c := range p.conns {
		_ = c.Close()
	}
}
