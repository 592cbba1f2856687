package dns_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	wire "github.com/miekg/dns"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/dns"
)

// lossy is a way to a nameserver, by TCP, that loses the answers to updates while lose is set.
type lossy struct {
	addr, target string
	lose         atomic.Bool
}

func newLossy(t *testing.T, target string) *lossy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	p := &lossy{addr: l.Addr().String(), target: target}
	var busy sync.WaitGroup
	busy.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			busy.Go(func() { defer c.Close(); _ = p.serve(c) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); busy.Wait() })
	return p
}

func (p *lossy) serve(c net.Conn) error {
	out, err := net.Dial("tcp", p.target)
	if err != nil {
		return err
	}
	defer out.Close()
	for {
		m, err := message(c)
		if err == nil {
			_, err = out.Write(m)
		}
		var a []byte
		if err == nil {
			a, err = message(out)
		}
		if err == nil && p.lose.Load() && int(m[4]>>3)&15 == wire.OpcodeUpdate {
			return nil
		}
		if err == nil {
			_, err = c.Write(a)
		}
		if err != nil {
			return err
		}
	}
}

// message reads a message with its length.
func message(r io.Reader) ([]byte, error) {
	m := make([]byte, 2)
	if _, err := io.ReadFull(r, m); err != nil {
		return nil, err
	}
	m = append(m, make([]byte, binary.BigEndian.Uint16(m))...)
	_, err := io.ReadFull(r, m[2:])
	return m, err
}

// An update whose answer is lost was carried out, or not: the next one finds out, and takes the record for its own.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	addr, domain := shared.Addr(t), domain()
	way := newLossy(t, addr)
	r := open(t, dns.Options{Servers: []string{way.addr}, Zone: domain, Key: key, TCP: true})
	other := open(t, dns.Options{Servers: []string{addr}, Zone: domain, Key: key})
	way.lose.Store(true)
	if err := r.Register(t.Context(), node("a"), 0); !errors.Is(err, registry.ErrUnavailable) || !strings.Contains(err.Error(), "closed the connection") {
		t.Errorf("Register gave %v", err)
	}
	way.lose.Store(false)
	changed := node("a")
	changed.Version = "2"
	must(t, r.Register(t.Context(), changed, 0))
	way.lose.Store(true)
	changed.Version = "3"
	if err := r.Register(t.Context(), changed, 0); !errors.Is(err, registry.ErrUnavailable) {
		t.Errorf("Register gave %v", err)
	}
	way.lose.Store(false)
	must(t, r.Register(t.Context(), changed, 0))
	if nodes, err := other.Get(t.Context(), "greeter"); err != nil || len(nodes) != 1 || !nodes[0].Equal(changed) {
		t.Errorf("Get gave %+v, %v", nodes, err)
	}
	way.lose.Store(true)
	if err := r.Deregister(t.Context(), changed); !errors.Is(err, registry.ErrUnavailable) {
		t.Errorf("Deregister gave %v", err)
	}
	way.lose.Store(false)
	must(t, r.Deregister(t.Context(), changed))
	way.lose.Store(true)
	if err := r.Register(t.Context(), node("b"), 0); !errors.Is(err, registry.ErrUnavailable) {
		t.Errorf("Register gave %v", err)
	}
	way.lose.Store(false)
	must(t, r.Close()) // what may stand is withdrawn
	if nodes, err := other.List(t.Context()); err != nil || len(nodes) != 0 {
		t.Errorf("List gave %+v, %v", nodes, err)
	}
}

// Of many that want one id at one time one gets it.
func TestOneOwner(t *testing.T) {
	t.Parallel()
	addr, domain := shared.Addr(t), domain()
	const many = 8
	errs := make([]error, many)
	var racing sync.WaitGroup
	for i := range many {
		r := open(t, dns.Options{Servers: []string{addr}, Zone: domain, Key: key})
		racing.Go(func() { errs[i] = r.Register(t.Context(), node("a"), 0) })
	}
	racing.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if !errors.Is(err, registry.ErrConflict) {
			t.Errorf("Register gave %v", err)
		}
	}
	if won != 1 {
		t.Errorf("%d have the id", won)
	}
}
