package etcd_test

import (
	"io"
	"net"
	"sync"
	"testing"
)

// relay is a way to a server that can be blocked: what is under way breaks off.
type relay struct {
	addr   string // where it listens
	target string
	l      net.Listener
	busy   sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool
	gate  chan struct{} // not nil: new connections wait until it is closed
	cut   bool          // new connections are refused
}

func newRelay(t testing.TB, target string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &relay{addr: l.Addr().String(), target: target, l: l, conns: map[net.Conn]bool{}}
	p.busy.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close()
		p.kill()
		p.busy.Wait()
	})
	return p
}

func (p *relay) accept() {
	for {
		c, err := p.l.Accept()
		if err != nil {
			return
		}
		p.busy.Go(func() { p.serve(c) })
	}
}

func (p *relay) serve(c net.Conn) {
	defer c.Close()
	p.mu.Lock()
	gate := p.gate
	p.mu.Unlock()
	if gate != nil {
		<-gate
	}
	out, err := net.Dial("tcp", p.target)
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

func (p *relay) add(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		p.conns[c] = true
	}
	return !p.cut
}

func (p *relay) remove(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		delete(p.conns, c)
	}
}

// kill breaks all connections off, and every one that comes later.
func (p *relay) kill() {
	p.release()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
	p.breakOff()
}

// revive lets connections through again.
func (p *relay) revive() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = false
}

// hold breaks all connections off, and keeps those that come later waiting until release.
func (p *relay) hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gate = make(chan struct{})
	p.breakOff()
}

func (p *relay) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gate != nil {
		close(p.gate)
		p.gate = nil
	}
}

func (p *relay) breakOff() {
	for c := range p.conns {
		_ = c.Close()
	}
}
