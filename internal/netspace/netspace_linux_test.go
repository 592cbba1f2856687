package netspace_test

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/internal/netspace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// echo answers on a machine, on all of its addresses, and gives the port.
func echo(t *testing.T, m *netspace.Machine) (port string) {
	t.Helper()
	var l net.Listener
	must(t, m.Do(func() (err error) { l, err = net.Listen("tcp", "0.0.0.0:0"); return err }))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("hello"))
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	_, port, err := net.SplitHostPort(l.Addr().String())
	must(t, err)
	return port
}

func reach(address string) error {
	c, err := net.DialTimeout("tcp", address, 200*time.Millisecond)
	if err != nil {
		return err
	}
	return c.Close()
}

func isLost(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// TestSite: a way that is cut loses what goes over it without a word, and the others do not.
func TestSite(t *testing.T) {
	t.Parallel()
	if !netspace.Alone(t) {
		return
	}
	if links, err := net.Interfaces(); err != nil || len(links) != 1 {
		t.Errorf("alone there are %v, %v", links, err)
	}
	first, second := netspace.NewSite(t), netspace.NewSite(t)
	a, b, other := first.Way(), first.Way(), second.Way()
	port := echo(t, first.Machine)
	to := func(w *netspace.Way) string { return net.JoinHostPort(w.Host, port) }
	for _, f := range []netspace.Flow{netspace.To, netspace.From, netspace.Both} {
		must(t, reach(to(a)))
		must(t, reach(to(b)))
		a.Cut(f)
		if err := reach(to(a)); !isLost(err) {
			t.Errorf("cut %v: %v", f, err)
		}
		must(t, reach(to(b)))
		a.Heal()
	}
	must(t, reach(to(a)))
	if err := reach(to(other)); err == nil || isLost(err) {
		t.Errorf("the second site gave %v", err)
	}
}

// TestLAN: who is plugged out reaches nobody.
func TestLAN(t *testing.T) {
	t.Parallel()
	lan := netspace.NewLAN(t, 2)
	a, b := lan.Machines[0], lan.Machines[1]
	port := echo(t, a)
	here := func(m *netspace.Machine) error {
		return m.Do(func() error { return reach(net.JoinHostPort(lan.Host(0), port)) })
	}
	eventually := func() {
		for here(b) != nil { // the link takes a moment
			must(t, t.Context().Err())
		}
	}
	eventually()
	must(t, here(a))
	must(t, lan.Plug(1, false))
	if err := here(b); err == nil {
		t.Error("a machine that is plugged out reached another")
	}
	must(t, lan.Plug(1, true))
	eventually()
}

// TestFailures are told, and leave the thread where it was.
func TestFailures(t *testing.T) {
	t.Parallel()
	m := netspace.New(t)
	if err := m.IP("link set nothing up"); err == nil || !strings.Contains(err.Error(), "ip link set nothing up: ") {
		t.Errorf("IP gave %v", err)
	}
	before, err := os.Readlink("/proc/thread-self/ns/net")
	must(t, err)
	var inside string
	if err := m.Do(func() error { inside, _ = os.Readlink("/proc/thread-self/ns/net"); return os.ErrExist }); !errors.Is(err, os.ErrExist) || inside == before {
		t.Errorf("Do gave %v, in %s", err, inside)
	}
	if after, _ := os.Readlink("/proc/thread-self/ns/net"); after != before {
		t.Errorf("after Do the thread is in %s, before it in %s", after, before)
	}
}

// TestThreadsStay: a process that is to be killed with what started it does not die of another machine.
func TestThreadsStay(t *testing.T) {
	m := netspace.New(t)
	ended := make(chan error, 8)
	var sleepers []*exec.Cmd
	for range cap(ended) {
		sleeper := exec.Command("sleep", "60")
		sleeper.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := m.Do(sleeper.Start); err != nil {
			t.Fatal(err)
		}
		sleepers = append(sleepers, sleeper)
		netspace.New(t)
	}
	for _, s := range sleepers {
		go func() { ended <- s.Wait() }()
		if err := s.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
	}
	for range sleepers {
		if err := <-ended; err == nil || err.Error() != "signal: interrupt" {
			t.Errorf("it ended with %v before it was told to", err)
		}
	}
}
