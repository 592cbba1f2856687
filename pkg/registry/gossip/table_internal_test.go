package gossip

import (
	"fmt"
	"net"
	"slices"
	"testing"

	"github.com/hashicorp/memberlist"

	"github.com/cb02dfca/micro/pkg/registry"
)

// FuzzMessage gives a member any message, and checks that what it knows holds together.
func FuzzMessage(f *testing.F) {
	const entry = `{"since":5,"node":{"id":"x","service":"greeter","address":"h:1"}}`
	for _, seed := range []string{
		`c{"owner":"b","prev":0,"version":1,"put":[` + entry + `]}`, `c{"owner":"b","prev":1,"version":3,"gone":["x","y"]}`,
		`c{"owner":"a","prev":0,"version":9}`, `w{"from":"b","nonce":7}`, `s{"owner":"b","version":4,"nonce":1,"nodes":[` + entry + `]}`,
		`p[{"owner":"c","version":2,"nodes":[` + entry + `]},{}]`, string(meta{1, 2, 3}.encode()), "",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		table := newTable(memberlist.Node{Name: "a"}, meta{}, newJournal(nil))
		for i, name := range []string{"b", "c"} {
			table.join(&memberlist.Node{Name: name, Addr: net.IPv4(127, 0, 0, 1), Port: uint16(i + 1), Meta: meta{start: 1, version: 3}.encode()})
			table.members[name].nonce = 1
		}
		if err := table.register(registry.Node{ID: "y", Service: "greeter", Address: "h:2"}, 0); err != nil {
			t.Fatal(err)
		}
		defer table.close()
		d := newDelegate(table, true)
		d.NotifyMsg(b)
		d.MergeRemoteState(b, true)
		table.check(t)
		if m, err := decodeMeta(b); err == nil && string(m.encode()) != string(b) {
			t.Errorf("the meta %x comes back as %x", b, m.encode())
		}
		for _, s := range table.known() {
			if _, err := decode(encode(kindSet, s)); err != nil && len(b) < 1000 { // an escape has up to six times its bytes
				t.Errorf("what is known cannot be told: %v", err)
			}
		}
	})
}

// check checks that what the table holds twice is the same.
func (t *table) check(tb testing.TB) {
	bytes, shown := 0, map[string]bool{}
	for _, m := range t.members {
		size := 0
		for id, e := range m.set {
			size += e.size
			if id != e.node.ID || registry.Validate(e.node) != nil {
				tb.Errorf("%s has under %q %+v", m.name, id, e.node)
			}
			shown[id] = true
		}
		if bytes += size; size != m.size {
			tb.Errorf("%s has %d bytes, and says %d", m.name, size, m.size)
		}
	}
	if bytes != t.bytes || len(shown) != len(t.claims) || len(shown) != t.hub.Len() {
		tb.Errorf("%d bytes are said to be %d; of %d ids %d are claimed and %d shown", bytes, t.bytes, len(shown), len(t.claims), t.hub.Len())
	}
}

// Changes come in any order, some never, and some twice: a set is that of its version, or is asked for.
func TestOrder(t *testing.T) {
	t.Parallel()
	node := func(id string) entry {
		return entry{since: 1, node: registry.Node{ID: id, Service: "greeter", Address: "h:1"}, size: 60}
	}
	changes := []change{
		{Owner: "b", Prev: 0, Version: 1, Put: []entry{node("x")}},
		{Owner: "b", Prev: 1, Version: 3, Put: []entry{node("y"), node("z")}},
		{Owner: "b", Prev: 3, Version: 4, Gone: []string{"x"}},
	}
	for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 1, 2, 0, 0}, {0, 2, 1, 2}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			table := newTable(memberlist.Node{Name: "a"}, meta{}, newJournal(nil))
			table.join(&memberlist.Node{Name: "b", Addr: net.IPv4(127, 0, 0, 1), Port: 1, Meta: meta{start: 1, version: 4}.encode()})
			for _, i := range order {
				table.change(changes[i])
			}
			table.check(t)
			m := table.members["b"]
			if nodes := table.hub.List(); len(nodes) != 2 || nodes[0].ID != "y" || m.version != 4 || len(m.pending) > 0 || !m.differs.IsZero() {
				t.Errorf("at version %d, with %d that wait, there is %+v", m.version, len(m.pending), nodes)
			}
		})
	}
}

// Of several members at one address the one that was started last is shown, also where a clock was set back in between: then
// when the other is found dead.
func TestOneAddress(t *testing.T) {
	t.Parallel()
	table := newTable(memberlist.Node{Name: "a", Addr: net.IPv4(127, 0, 0, 1), Port: 1}, meta{start: 50}, newJournal(nil))
	member := func(name string, port uint16, start uint64) *memberlist.Node {
		n := &memberlist.Node{Name: name, Addr: net.IPv4(127, 0, 0, 1), Port: port, Meta: meta{start: start, version: 1}.encode()}
		table.join(n)
		table.change(change{Owner: name, Version: 1, Put: []entry{{node: registry.Node{ID: "of-" + name, Service: "greeter", Address: "h:1"}, size: 60}}})
		return n
	}
	shows := func(what string, want ...string) {
		t.Helper()
		got := []string{}
		for _, n := range table.hub.List() {
			got = append(got, n.ID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: it shows %q, want %q", what, got, want)
		}
	}
	member("mine-once", 1, 40)
	shows("one that had this member's address")
	former := member("b", 2, 10)
	shows("one", "of-b")
	later := member("c", 2, 20)
	shows("one that was started later", "of-c")
	table.leave(former)
	shows("the former is dead", "of-c")
	back := member("d", 2, 15)
	shows("one that was started later with its clock set back", "of-c")
	table.leave(later)
	shows("the former is dead", "of-d")
	table.leave(back)
	shows("none")
	if table.bytes != 60 {
		t.Errorf("%d bytes are left", table.bytes)
	}
}

// A set that would be beyond the limits is left out, and there is room again when others are gone.
func TestLimits(t *testing.T) {
	t.Parallel()
	table := newTable(memberlist.Node{Name: "a"}, meta{}, newJournal(nil))
	of := func(i int) *memberlist.Node {
		return &memberlist.Node{Name: fmt.Sprint("m", i), Addr: net.IPv4(127, 0, 0, 1), Port: uint16(i + 1), Meta: meta{start: 1, version: 1}.encode()}
	}
	give := func(i int) {
		table.state([]set{{Owner: fmt.Sprint("m", i), Version: 1, Nodes: []entry{{node: registry.Node{ID: fmt.Sprint("n", i), Service: "greeter", Address: "h:1"}, size: maxSet}}}})
	}
	for i := range maxTotal/maxSet + 1 {
		table.join(of(i))
		give(i)
	}
	if n := table.hub.Len(); n != maxTotal/maxSet {
		t.Errorf("%d sets of %d bytes are kept, the limit is %d bytes", n, maxSet, maxTotal)
	}
	table.leave(of(0))
	give(maxTotal / maxSet)
	if _, ok := table.hub.Lookup(fmt.Sprint("n", maxTotal/maxSet)); !ok {
		t.Error("there is no room after a member left")
	}
	for i := len(table.members); i < maxMembers; i++ {
		table.join(of(i + 100))
	}
	if table.admits("one more") || !table.admits("m1") {
		t.Errorf("with %d members one more is admitted, or one is not", len(table.members))
	}
}
