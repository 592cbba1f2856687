package transporttest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/cb02dfca/micro/internal/netspace"
	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/transport"
)

// Partitions says how a backend's ends are cut off, by a network that loses packets without a word. Times are on a busy machine.
type Partitions struct {
	// Server says how the server is run that both ends are clients of. Nil: they speak to each other. A test that cannot run it
	// is skipped here.
	Server func(t *testing.T) testserver.Spec
	// Open opens a transport, on the server at host:port where there is one.
	Open func(t *testing.T, server string) transport.Transport
	// Lost is how long an end that is cut off may wait for a message. Default 16 s.
	Lost time.Duration
	// PeerLost is how long one may wait for a message of another that is cut off from the server of both. Zero: for ever, so that
	// calls need a time of their own.
	PeerLost time.Duration
	// Back is how long after the partition's end it may take until calls go well again. Default 8 s.
	Back time.Duration
}

// cutTime is how long a partition lasts: so long that TCP, which doubles its pauses, would say nothing for many seconds after its end.
const cutTime = 16 * time.Second

// RunPartitions runs, as subtests of t, what happens to callers, and to listeners that are clients of a server, when they are cut off. It
// calls t.Parallel. Where no network can be made the test is skipped.
func RunPartitions(t *testing.T, p Partitions) {
	t.Helper()
	for v, d := range map[*time.Duration]time.Duration{&p.Lost: cutTime, &p.Back: 8 * time.Second} {
		if *v == 0 {
			*v = d
		}
	}
	t.Parallel()
	if !netspace.Alone(t) {
		return
	}
	var server *testserver.Beyond
	if p.Server != nil {
		server = testserver.NewBeyond(t, p.Server(t))
	}
	for _, f := range []netspace.Flow{netspace.To, netspace.From, netspace.Both} {
		t.Run("a caller, packets lost: "+f.String(), func(t *testing.T) {
			t.Parallel()
			if server == nil {
				p.direct(t, f)
				return
			}
			addr, way := server.Way()
			l := p.listener(t, p.Open(t, server.Addr), "")
			p.cut(t, p.Open(t, addr), l.Addr(), p.Lost, func() { way.Cut(f) }, way.Heal)
		})
		if server == nil {
			continue
		}
		t.Run("a listener, packets lost: "+f.String(), func(t *testing.T) {
			t.Parallel()
			addr, way := server.Way()
			l := p.listener(t, p.Open(t, addr), "")
			p.cut(t, p.Open(t, server.Addr), l.Addr(), p.PeerLost, func() { way.Cut(f) }, way.Heal)
		})
	}
}

// direct is for ends that speak to each other.
func (p *Partitions) direct(t *testing.T, f netspace.Flow) {
	there := testserver.ListenBeyond(t, func(address string) (string, error) {
		return p.listener(t, p.Open(t, ""), address).Addr(), nil
	})
	addr, way := there.Way()
	p.cut(t, p.Open(t, ""), addr, p.Lost, func() { way.Cut(f) }, way.Heal)
}

// listener echoes until the end of the test.
func (p *Partitions) listener(t *testing.T, tr transport.Transport, address string) transport.Listener {
	l, err := tr.Listen(bounded(t), address)
	if err != nil {
		t.Error(err)
		t.FailNow()
	}
	accepting := make(chan struct{})
	conns := make(chan transport.Conn, 100)
	go func() {
		defer close(accepting)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns <- c
			go func() {
				for {
					var m transport.Message
					if c.Recv(context.Background(), &m) != nil {
						return
					}
					if m.Kind == transport.Call {
						_ = c.Send(context.Background(), &transport.Message{Kind: transport.Reply, ID: m.ID, Body: m.Body})
					}
				}
			}()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-accepting
		for close(conns); ; {
			c, ok := <-conns
			if !ok {
				return
			}
			c.Close()
		}
	})
	return l
}

// cut calls, cuts, waits for the call's failure, heals and calls again.
func (p *Partitions) cut(t *testing.T, tr transport.Transport, addr string, lost time.Duration, cut, heal func()) {
	dial := func() (transport.Conn, error) {
		ctx, stop := context.WithTimeout(t.Context(), 2*time.Second)
		defer stop()
		return tr.Dial(ctx, addr)
	}
	call := func(c transport.Conn, id uint32, d time.Duration) error {
		ctx, stop := context.WithTimeout(t.Context(), d)
		defer stop()
		if err := c.Send(ctx, &transport.Message{Kind: transport.Call, ID: id, Body: []byte("x")}); err != nil {
			return err
		}
		var m transport.Message
		if err := c.Recv(ctx, &m); err != nil {
			return err
		}
		if m.Kind != transport.Reply || m.ID != id {
			return fmt.Errorf("got a %s with id %d", m.Kind, m.ID)
		}
		return nil
	}
	c, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := call(c, 1, patience); err != nil {
		t.Fatal(err)
	}
	cut()
	begun := time.Now()
	longest := lost
	if lost == 0 {
		longest = cutTime
	}
	err = call(c, 2, longest)
	took := time.Since(begun)
	t.Logf("a call on a connection that was cut: after %v: %v", took.Round(10*time.Millisecond), err)
	if err == nil || lost > 0 && took >= lost {
		t.Errorf("a call on a connection that was cut took %v and gave %v; want an error, before %v", took, err, lost)
	}
	if c, err := dial(); err == nil {
		if err := call(c, 1, 2*time.Second); err == nil {
			t.Error("a connection was made, and carries a call, while all is cut off")
		}
		_ = c.Close()
	}
	time.Sleep(cutTime - time.Since(begun))
	heal()
	begun = time.Now()
	for {
		again, err := dial()
		if err == nil {
			err = call(again, 1, 2*time.Second)
			_ = again.Close()
		}
		if took := time.Since(begun); err == nil && took < p.Back {
			t.Logf("calls go well: after %v", took.Round(10*time.Millisecond))
			return
		} else if took >= p.Back {
			t.Errorf("calls did not go well within %v: %v", p.Back, err)
			return
		}
	}
}
