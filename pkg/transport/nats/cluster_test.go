package nats_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/nats"
)

// TestCluster: each server of a cluster is killed and comes back in its turn, with a caller and a listener at each. A listener keeps its
// address, and is called again.
func TestCluster(t *testing.T) {
	t.Parallel()
	servers := testserver.NATSCluster(t, 3)
	var addrs []string
	for _, s := range servers {
		addrs = append(addrs, s.Addr)
	}
	all, err := transport.Openers{"nats": nats.Open}.Open(t.Context(), "nats://"+strings.Join(addrs, ","))
	must(t, err)
	t.Cleanup(func() { _ = all.(*nats.Transport).Close() })
	callers, listeners := []transport.Transport{all}, []transport.Listener{}
	for i, addr := range addrs { // each knows one server, and hears from that of the others
		tr := open(t, nats.Options{Servers: []string{addr}})
		l, err := tr.Listen(t.Context(), fmt.Sprint("service", i))
		must(t, err)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go echo(c)
			}
		}()
		listeners, callers = append(listeners, l), append(callers, tr)
	}
	call := func(tr transport.Transport, l transport.Listener) error {
		ctx, stop := context.WithTimeout(t.Context(), 5*time.Second)
		defer stop()
		c, err := tr.Dial(ctx, l.Addr())
		if err != nil {
			return err
		}
		calls := transport.NewCaller(c)
		defer calls.Close()
		return calls.Call(ctx, &transport.Message{Body: []byte("x")}, &transport.Message{})
	}
	each := func(when string, more time.Duration) {
		t.Helper()
		began := time.Now()
		for i, tr := range callers {
			for _, l := range listeners {
				eventually(t, fmt.Sprintf("%s, caller %d calls %s", when, i, l.Addr()), func() bool { return call(tr, l) == nil })
			}
		}
		if took := time.Since(began); took > more {
			t.Errorf("%s it took %v until all could call", when, took)
		}
	}
	each("at first", 5*time.Second)
	for i, s := range servers {
		s.Stop("KILL")
		each(fmt.Sprint("without server ", i), 10*time.Second)
		s.MustStart(t)
		each(fmt.Sprint("with server ", i, " again"), 10*time.Second)
	}
}
