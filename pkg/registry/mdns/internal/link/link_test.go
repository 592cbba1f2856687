package link_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/pkg/registry/mdns/internal/link"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestNetwork(t *testing.T) {
	t.Parallel()
	n := link.NewNetwork([]link.Interface{
		{Interface: net.Interface{Index: 1, Flags: net.FlagUp | net.FlagLoopback}, Prefixes: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}},
		{Interface: net.Interface{Index: 2, Flags: net.FlagUp | net.FlagMulticast}, Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("2001:db8::1/64")}},
		{Interface: net.Interface{Index: 3, Flags: net.FlagMulticast}, Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.3.1/24")}},
		{Interface: net.Interface{Index: 4, Flags: net.FlagUp | net.FlagMulticast}},
		{Interface: net.Interface{Index: 5, Flags: net.FlagUp}, Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.5.1/24")}},
	}, time.Now())
	for i, want := range []string{"", "", "is down", "has no IPv4 address", "takes no multicast"} {
		if got := n.Interfaces[i].Why(); got != want {
			t.Errorf("interface %d %q, want %q", i+1, got, want)
		}
	}
	for _, c := range []struct {
		addr   string
		index  int
		local  bool
		onLink bool
	}{
		{"127.0.0.1", 1, true, true},
		{"127.0.0.53", 2, true, false},
		{"::1", 1, true, false},
		{"10.0.0.1", 2, true, true},
		{"10.0.0.9", 2, false, true},
		{"10.0.0.9", 0, false, true},
		{"10.0.0.9", 1, false, false},
		{"10.0.1.9", 2, false, false},
		{"2001:db8::1", 2, true, true},
		{"2001:db8::9", 2, false, true},
		{"2001:db9::9", 2, false, false},
	} {
		a := netip.MustParseAddr(c.addr)
		if got := n.Local(a); got != c.local {
			t.Errorf("%s local %v, want %v", a, got, c.local)
		}
		if got := n.OnLink(c.index, a); got != c.onLink {
			t.Errorf("%s on link %d: %v, want %v", a, c.index, got, c.onLink)
		}
	}
}

// loopback gives the machine's loopback, on which packets can be sent that nobody else hears.
func loopback(t *testing.T) *link.Interface {
	t.Helper()
	n, err := link.Look()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range n.Interfaces {
		if i.Loopback() && i.Why() == "" {
			return &i
		}
	}
	t.Skip("SKIPPED: no loopback interface")
	return nil
}

func TestMulticastOnLoopback(t *testing.T) {
	t.Parallel()
	lo := loopback(t)
	ear, err := link.Listen(t.Context())
	if err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	defer ear.Close()
	if err := ear.Join(lo); err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	mouth, err := link.Ask(t.Context(), netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	defer mouth.Close()
	for what, send := range map[string]func([]byte, *link.Interface) error{"Multicast": mouth.Multicast, "MulticastInside": mouth.MulticastInside} {
		if err := send([]byte(what+" of link_test"), lo); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		p := read(t, ear, what+" of link_test")
		if p.From.Addr() != netip.MustParseAddr("127.0.0.1") || p.To.IsValid() && p.To != link.Group() || p.Interface != 0 && p.Interface != lo.Index {
			t.Errorf("%s: %+v", what, p)
		}
		if err := ear.Send([]byte("back"), p.From); err != nil {
			t.Fatal(err)
		}
		if p := read(t, mouth, "back"); p.From.Port() != link.Port {
			t.Errorf("answered from port %d", p.From.Port())
		}
	}
	if err := ear.Leave(lo); err != nil {
		t.Error(err)
	}
}

// read waits for the packet that says want, among those of other tests.
func read(t *testing.T, c *link.Conn, want string) link.Packet {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	buf := make([]byte, 65536)
	for {
		p, err := c.Read(buf)
		if err != nil {
			t.Fatalf("%q did not come: %v", want, err)
		}
		if string(p.Data) == want {
			return p
		}
	}
}

func TestReadDeadline(t *testing.T) {
	t.Parallel()
	c, err := link.Ask(t.Context(), netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}
