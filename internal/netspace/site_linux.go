package netspace

import (
	"errors"
	"fmt"
	"sync"
	"testing"
)

var sites struct {
	sync.Mutex
	made int
}

// NewSite makes a site for a test that runs [Alone].
func NewSite(t testing.TB) *Site {
	t.Helper()
	sites.Lock()
	defer sites.Unlock()
	sites.made++
	s := &Site{Machine: New(t), router: New(t), t: t}
	near, far := fmt.Sprintf("10.81.%d.", sites.made), fmt.Sprintf("10.82.%d.", sites.made)
	name := fmt.Sprintf("site%d", sites.made)
	s.ways = sites.made << 8
	err := errors.Join(
		ip("link add "+name+" type veth peer name near netns "+s.router.path()),
		all(ip, "addr add "+near+"1/24 dev "+name, "link set "+name+" up"),
		all(s.router.IP, "addr add "+near+"2/24 dev near", "link set near up",
			"link add far type veth peer name out netns "+s.Machine.path(), "addr add "+far+"2/24 dev far", "link set far up"),
		all(s.Machine.IP, "addr add "+far+"1/24 dev out", "link set out up", "route add default via "+far+"2"),
		s.router.Do(func() error { return write("/proc/sys/net/ipv4/ip_forward", "1") }),
		all(ip, fmt.Sprintf("route add 10.80.%d.0/24 via %s2", sites.made, near)),
		all(s.router.IP, fmt.Sprintf("route add 10.80.%d.0/24 via %s1", sites.made, far)),
	)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Way makes one more way to the site.
func (s *Site) Way() *Way {
	s.t.Helper()
	sites.Lock()
	defer sites.Unlock()
	s.ways++
	w := &Way{Host: fmt.Sprintf("10.80.%d.%d", s.ways>>8, s.ways&0xff), s: s}
	w.must(s.IP("addr add " + w.Host + "/32 dev lo"))
	return w
}

// Cut loses, from now on, the packets of a flow: nobody is told. What was cut before is cut no more.
func (w *Way) Cut(f Flow) {
	w.s.t.Helper()
	for flow, rule := range map[Flow]string{To: "to " + w.Host + " blackhole", From: "from " + w.Host + " blackhole"} {
		switch {
		case f&flow != 0 && w.cut&flow == 0:
			w.must(w.s.router.IP("rule add " + rule))
		case f&flow == 0 && w.cut&flow != 0:
			w.must(w.s.router.IP("rule del " + rule))
		}
	}
	w.cut = f
}

// Heal ends a cut.
func (w *Way) Heal() {
	w.s.t.Helper()
	w.Cut(0)
}

func (w *Way) must(err error) {
	w.s.t.Helper()
	if err != nil {
		w.s.t.Fatal(err)
	}
}
