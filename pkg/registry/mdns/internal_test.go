package mdns

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/mdns/internal/link"
	"github.com/cb02dfca/micro/pkg/registry/mdns/internal/wire"
)

// The times and the rules of belief are tested here, with times and packets that no network gives on demand.

func TestPace(t *testing.T) {
	t.Parallel()
	start := time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	// run reads an empty socket each millisecond, but for those at which news comes.
	run := func(empty time.Duration, news func(ms int) bool) (resends []int, settledAt, overAt int) {
		p := pace{start: start, empty: empty}
		for ms := 1; ms < 1000; ms++ {
			if news(ms) {
				p.news(at(ms))
				if p.late(at(ms)) {
					return resends, settledAt, ms
				}
				continue
			}
			switch p.ticked(at(ms)) {
			case resend:
				resends = append(resends, ms)
			case settled:
				if settledAt == 0 {
					settledAt = ms
				}
			case over:
				return resends, settledAt, ms
			}
		}
		return resends, settledAt, -1
	}
	for name, c := range map[string]struct {
		news    func(ms int) bool
		resends string
		settled int
		over    int
	}{
		"nobody":                  {func(int) bool { return false }, "[12 35 100]", 0, 250},
		"one at once":             {func(ms int) bool { return ms == 1 }, "[]", 3, 30},
		"one late":                {func(ms int) bool { return ms == 40 }, "[12 35]", 42, 80},
		"a burst of 10 ms":        {func(ms int) bool { return ms <= 10 }, "[]", 12, 30},
		"a burst of 40 ms":        {func(ms int) bool { return ms <= 40 }, "[]", 42, 80},
		"every 10 ms without end": {func(ms int) bool { return ms%10 == 0 }, "[]", 12, 251},
		"every ms without end":    {func(int) bool { return true }, "[]", 0, 500},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resends, settled, over := run(maxWait, c.news)
			if fmt.Sprint(resends) != c.resends || settled != c.settled || over != c.over {
				t.Errorf("resent at %v, settled at %d, over at %d; want %s, %d, %d", resends, settled, over, c.resends, c.settled, c.over)
			}
		})
	}
}

// TestPaceCountsTicks: a process that did not run has not waited.
func TestPaceCountsTicks(t *testing.T) {
	t.Parallel()
	p := pace{start: time.Now(), empty: maxWait}
	p.news(p.start.Add(time.Millisecond))
	if v := p.ticked(p.start.Add(200 * time.Millisecond)); v != wait {
		t.Errorf("over after a single empty read, 200 ms later: %v", v)
	}
}

func found(id, service string, port uint16) wire.Found {
	a := netip.AddrPortFrom(netip.MustParseAddr("10.0.0.5"), port)
	return wire.Found{
		Instance: id + "." + service + ".micro.", Addr: a, TTL: 30 * time.Second,
		Node: registry.Node{ID: id, Service: service, Address: a.String()},
	}
}

func gone(f wire.Found) wire.Found { return wire.Found{Instance: f.Instance, Gone: true} }

func remote(s string) source { return source{addr: netip.MustParseAddr(s)} }

func TestCache(t *testing.T) {
	t.Parallel()
	var here source
	a, b := remote("10.0.0.5"), remote("10.0.0.6")
	now := time.Now()
	f := found("x-1", "x", 80)
	changed := found("x-1", "x", 81)
	type step struct {
		f     wire.Found
		from  source
		after time.Duration
		learn bool
	}
	for name, c := range map[string]struct {
		steps []step
		want  int
	}{
		"new, then known":                         {[]step{{f, a, 0, true}, {f, a, 0, false}}, 1},
		"changed":                                 {[]step{{f, a, 0, true}, {changed, a, 0, true}}, 1},
		"goodbye":                                 {[]step{{f, a, 0, true}, {gone(f), a, 0, true}, {gone(f), a, 0, false}}, 0},
		"another's goodbye":                       {[]step{{f, a, 0, true}, {gone(f), b, 0, false}}, 1},
		"this machine's goodbye":                  {[]step{{f, a, 0, true}, {gone(f), here, 0, false}}, 1},
		"another's claim":                         {[]step{{f, a, 0, true}, {changed, b, 0, false}}, 1},
		"another's claim after the ttl":           {[]step{{f, a, 0, true}, {changed, b, 31 * time.Second, true}}, 1},
		"this machine's claim":                    {[]step{{f, a, 0, true}, {changed, here, 0, true}, {f, a, 0, false}}, 1},
		"one id in two services":                  {[]step{{f, a, 0, true}, {found("x-1", "y", 80), b, 0, false}}, 1},
		"one id in two services, of this machine": {[]step{{f, a, 0, true}, {found("x-1", "y", 80), here, 0, true}}, 1},
		"goodbye of who is unknown":               {[]step{{gone(f), a, 0, false}}, 0},
		"two":                                     {[]step{{f, a, 0, true}, {found("x-2", "x", 80), b, 0, true}}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cache, now := newCache(), now
			for i, s := range c.steps {
				now = now.Add(s.after)
				if got := cache.apply(s.f, s.from, now); got != s.learn {
					t.Errorf("step %d: learnt %v, want %v", i, got, s.learn)
				}
			}
			if got := len(cache.live("", now)); got != c.want || len(cache.ids) != c.want {
				t.Errorf("%d nodes, %d ids, want %d", got, len(cache.ids), c.want)
			}
		})
	}
}

func TestCacheLimits(t *testing.T) {
	t.Parallel()
	now, c := time.Now(), newCache()
	for host := range 8 {
		for i := range maxPerSource + 1 {
			c.apply(found(fmt.Sprintf("n-%d-%d", host, i), "x", 80), remote(fmt.Sprintf("10.0.0.%d", host+1)), now)
		}
		if host == 0 && len(c.nodes) != maxPerSource {
			t.Errorf("one host has %d nodes, limit %d", len(c.nodes), maxPerSource)
		}
	}
	if len(c.nodes) != maxNodes {
		t.Errorf("%d nodes, limit %d", len(c.nodes), maxNodes)
	}
	if gone := c.expire(now.Add(31 * time.Second)); len(gone) != maxNodes || len(c.nodes)+len(c.ids)+len(c.from)+c.size != 0 {
		t.Errorf("%d expired, %d nodes, %d ids, %d sources and %d bytes are left", len(gone), len(c.nodes), len(c.ids), len(c.from), c.size)
	}
}

// TestCacheBytes: a small packet may inflate to a node of thousands of fields, and so may many.
func TestCacheBytes(t *testing.T) {
	t.Parallel()
	bomb := func(id string) wire.Found {
		f := found(id, "x", 80)
		fields := make([]*registry.Value, 20_000)
		for i := range fields {
			fields[i] = &registry.Value{}
		}
		f.Node.Endpoints = []registry.Endpoint{{Name: "E", Request: &registry.Value{Values: fields}}}
		return f
	}
	now, c := time.Now(), newCache()
	liar := remote("10.0.0.5")
	for i := range 50 {
		f := bomb(fmt.Sprintf("n-%d", i))
		if learnt := c.apply(f, liar, now); learnt != (i < maxSizeFrom/sizeOf(f.Node)) {
			t.Fatalf("node %d of %d bytes: learnt %v", i, sizeOf(f.Node), learnt)
		}
	}
	if c.apply(bomb("n-0"), liar, now) || !c.apply(found("other", "x", 80), remote("10.0.0.6"), now) {
		t.Error("a renewal was taken for news, or another host is shut out")
	}
	if !c.apply(gone(bomb("n-0")), liar, now) || !c.apply(bomb("last"), liar, now) {
		t.Error("a goodbye made no room")
	}
	for i := range 100 {
		c.apply(bomb(fmt.Sprintf("local-%d", i)), source{}, now)
	}
	if c.size > maxSize || c.size < maxSize/2 {
		t.Errorf("%d bytes, limit %d", c.size, maxSize)
	}
	c.expire(now.Add(time.Hour))
	if len(c.from)+c.size != 0 {
		t.Errorf("%d sources and %d bytes are left", len(c.from), c.size)
	}
}

func TestCacheTimes(t *testing.T) {
	t.Parallel()
	now, c := time.Now(), newCache()
	for id, ttl := range map[string]time.Duration{"short": 0, "usual": 30 * time.Second, "long": 24 * time.Hour} {
		f := found(id, id, 80)
		f.TTL = ttl
		c.apply(f, remote("10.0.0.5"), now)
	}
	for id, want := range map[string]time.Duration{"short": minTTL, "usual": 30 * time.Second, "long": maxTTL} {
		if got := c.nodes[id+"."+id+".micro."].expires.Sub(now); got != want {
			t.Errorf("%s lives for %v, want %v", id, got, want)
		}
	}
	// Four questions before the end, none for what nobody wants.
	wanted := func(s string) bool { return s == "usual" }
	var asked []time.Duration
	for age := time.Duration(0); age < 30*time.Second; age += 100 * time.Millisecond {
		if len(c.stale(now.Add(age), wanted)) > 0 {
			asked = append(asked, age)
		}
	}
	if len(asked) != 4 || asked[0] < 24*time.Second || asked[0] > 25*time.Second || asked[3] > 30*time.Second {
		t.Errorf("asked again at %v, want four times from 24 s on", asked)
	}
}

func record(t *testing.T, id string) *wire.Record {
	t.Helper()
	rec, err := wire.NewRecord(registry.Node{ID: id, Service: "x", Address: "127.0.0.1:80"}, "micro.")
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

func TestTableAnnounces(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		renew bool
		want  string
	}{
		"on this machine": {false, "[250ms 1s]"},
		"on the LAN":      {true, "[250ms 1s 10s 19s 28s 37s]"}, // a third of 30 s, less up to a tenth
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			tab := table{nodes: map[string]*own{}}
			tab.put(record(t, "x-1"), nil, 0, start)
			ttl := func(*own) time.Duration { return 30 * time.Second }
			var sent []time.Duration
			for n := 0; n < 6; n++ {
				next := tab.next()
				if next.IsZero() {
					break
				}
				if fresh, renewed := tab.announcements(next.Add(-1), c.renew, ttl); len(fresh)+len(renewed) != 0 {
					t.Error("announced too early")
				}
				fresh, renewed := tab.announcements(next, c.renew, ttl)
				if len(fresh)+len(renewed) != 1 || (len(renewed) == 1) != (n >= 2) {
					t.Errorf("announcement %d: %d fresh, %d renewed", n, len(fresh), len(renewed))
				}
				sent = append(sent, next.Sub(start))
			}
			if !c.renew {
				if fmt.Sprint(sent) != c.want {
					t.Errorf("announced at %v, want %s", sent, c.want)
				}
				return
			}
			for i, at := range sent[2:] {
				lo, hi := time.Second+time.Duration(i+1)*9*time.Second, time.Second+time.Duration(i+1)*10*time.Second
				if at < lo || at > hi {
					t.Errorf("renewed at %v, want %v to %v", at, lo, hi)
				}
			}
		})
	}
}

func TestTableGoodbyes(t *testing.T) {
	t.Parallel()
	now := time.Now()
	tab := table{nodes: map[string]*own{}}
	tab.put(record(t, "x-1"), nil, 0, now)
	tab.put(record(t, "x-2"), nil, time.Second, now)
	if tab.remove(registry.Node{ID: "x-1", Service: "another"}, now) != nil {
		t.Error("a node of another service was removed")
	}
	if tab.remove(registry.Node{ID: "x-1", Service: "x"}, now) == nil {
		t.Error("the node was not removed")
	}
	if n := len(tab.lapsed(now.Add(time.Second - 1))); n != 0 {
		t.Errorf("%d nodes lapsed early", n)
	}
	now = now.Add(time.Second)
	if n := len(tab.lapsed(now)); n != 1 {
		t.Errorf("%d nodes lapsed, want 1", n)
	}
	tab.put(record(t, "x-2"), nil, 0, now) // it is back before its second goodbye
	if again := tab.repeats(now.Add(secondGoodbye)); len(again) != 1 || again[0].Node.ID != "x-1" {
		t.Errorf("goodbyes said again: %v", again)
	}
	if again := tab.repeats(now.Add(time.Hour)); len(again) != 0 {
		t.Errorf("goodbyes said a third time: %v", again)
	}
}

// network is a machine with loopback and two links.
func network() *link.Network {
	prefix := netip.MustParsePrefix
	return link.NewNetwork([]link.Interface{
		{Interface: net.Interface{Index: 1, Name: "lo", Flags: net.FlagUp | net.FlagLoopback}, Prefixes: []netip.Prefix{prefix("127.0.0.1/8")}},
		{Interface: net.Interface{Index: 2, Name: "eth0", Flags: net.FlagUp | net.FlagMulticast}, Prefixes: []netip.Prefix{prefix("10.0.0.1/24")}},
		{Interface: net.Interface{Index: 3, Name: "wlan0", Flags: net.FlagUp | net.FlagMulticast}, Prefixes: []netip.Prefix{prefix("192.168.1.1/24")}},
	}, time.Now())
}

func TestWhoIsHeard(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		from      string
		index     int
		ttl       int
		host, lan bool
	}{
		"this machine on loopback":     {"127.0.0.1:5353", 1, 255, true, true},
		"this machine, looped":         {"10.0.0.1:5353", 2, 1, true, true},
		"a neighbour":                  {"10.0.0.5:5353", 2, 255, false, true},
		"a neighbour of go-micro":      {"10.0.0.5:5353", 2, 1, false, true},
		"beyond a router":              {"10.0.0.5:5353", 2, 63, false, false},
		"off-link":                     {"203.0.113.5:5353", 2, 255, false, false},
		"of another link":              {"192.168.1.5:5353", 2, 255, false, false},
		"a link that is not asked for": {"192.168.1.5:5353", 3, 255, false, false},
		"on a system that tells less":  {"10.0.0.5:5353", 0, 0, false, true},
		"nobody":                       {"0.0.0.0:5353", 2, 255, false, false},
		"a group":                      {"224.0.0.251:5353", 2, 255, false, false},
		"port zero":                    {"10.0.0.5:0", 2, 255, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for scope, want := range map[Scope]bool{Host: c.host, LAN: c.lan} {
				g := &guard{scope: scope, names: []string{"eth0"}, net: network()}
				_, got := g.admit(link.Packet{From: netip.MustParseAddrPort(c.from), Interface: c.index, TTL: c.ttl})
				if got != want {
					t.Errorf("scope %d: heard %v, want %v", scope, got, want)
				}
			}
		})
	}
}

func TestWhatIsBelieved(t *testing.T) {
	t.Parallel()
	var here source
	for name, c := range map[string]struct {
		from source
		node string
		want bool
	}{
		"this machine of loopback":           {here, "127.0.0.1:80", true},
		"this machine of its LAN address":    {here, "10.0.0.1:80", true},
		"this machine of IPv6 loopback":      {here, "[::1]:80", true},
		"this machine of another":            {here, "10.0.0.5:80", false},
		"a neighbour of itself":              {remote("10.0.0.5"), "10.0.0.5:80", true},
		"a neighbour of a neighbour":         {remote("10.0.0.5"), "10.0.0.6:80", true},
		"a neighbour of this machine":        {remote("10.0.0.5"), "10.0.0.1:80", false},
		"a neighbour of our loopback":        {remote("10.0.0.5"), "127.0.0.1:80", false},
		"a neighbour of elsewhere":           {remote("10.0.0.5"), "203.0.113.5:80", false},
		"a neighbour of another link":        {remote("10.0.0.5"), "192.168.1.5:80", false},
		"a neighbour of the metadata server": {remote("10.0.0.5"), "169.254.169.254:80", false},
		"a neighbour of a group":             {remote("10.0.0.5"), "224.0.0.1:80", false},
		"a neighbour of nothing":             {remote("10.0.0.5"), "0.0.0.0:80", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := &guard{scope: LAN, net: network()}
			if got := g.believes(link.Packet{Interface: 2}, c.from, wire.Found{Addr: netip.MustParseAddrPort(c.node)}); got != c.want {
				t.Errorf("believed %v, want %v", got, c.want)
			}
		})
	}
}

// TestHandle gives packets to the endpoint's own door.
func TestHandle(t *testing.T) {
	t.Parallel()
	rec := record(t, "x-1")
	good, err := wire.Response(0, nil, rec.Pointer(rec.Service, 30))
	if err != nil {
		t.Fatal(err)
	}
	ours := netip.MustParseAddrPort("127.0.0.1:5353")
	for name, c := range map[string]struct {
		p    link.Packet
		want int
	}{
		"good":                  {link.Packet{Data: good, From: ours, To: link.Group(), Interface: 1}, 1},
		"on a lesser system":    {link.Packet{Data: good, From: ours}, 1},
		"not to the group":      {link.Packet{Data: good, From: ours, To: netip.MustParseAddr("127.0.0.1"), Interface: 1}, 0},
		"from another port":     {link.Packet{Data: good, From: netip.MustParseAddrPort("127.0.0.1:1024"), Interface: 1}, 0},
		"spoofed from off-link": {link.Packet{Data: good, From: netip.MustParseAddrPort("203.0.113.5:5353"), Interface: 2, TTL: 255}, 0},
		"from the LAN":          {link.Packet{Data: good, From: netip.MustParseAddrPort("10.0.0.5:5353"), Interface: 2, TTL: 255}, 0},
		"huge":                  {link.Packet{Data: append(good[:len(good):len(good)], make([]byte, wire.MaxPacket)...), From: ours, Interface: 1}, 0},
		"garbage":               {link.Packet{Data: []byte("\x00\x00\x80\x00garbage that is long enough"), From: ours, Interface: 1}, 0},
		"short":                 {link.Packet{Data: good[:11], From: ours, Interface: 1}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := New(Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			r.guard.net, r.cache = network(), newCache()
			e := &endpoint{r: r}
			e.handle(c.p, wire.NewParser(r.domain), time.Now())
			if got := len(r.hub.List()); got != c.want {
				t.Errorf("%d nodes, want %d", got, c.want)
			}
		})
	}
}

func TestRates(t *testing.T) {
	t.Parallel()
	var r rates
	now := time.Unix(1000, 0)
	allowed := 0
	for range 10 * maxRate {
		if r.allow(remote("10.0.0.5"), now) {
			allowed++
		}
	}
	if allowed != maxRate || !r.allow(remote("10.0.0.6"), now) || !r.allow(remote("10.0.0.5"), now.Add(time.Second)) {
		t.Errorf("%d queries answered in a second, limit %d a host", allowed, maxRate)
	}
}
