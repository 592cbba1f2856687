package gossip_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/gossip"
)

// stranger is a member that says what it likes.
type stranger struct {
	name  string
	meta  []byte
	state func() []byte
	list  *memberlist.Memberlist

	mu  sync.Mutex
	met map[string]memberlist.Node // copies: those that Members gives are written to
	set string                     // what it answers to who asks; none where it is empty
}

// NotifyMsg answers a question: on a busy machine a member may hold it for dead for a while, and ask for its set again then.
func (s *stranger) NotifyMsg(b []byte) {
	var asked struct {
		From  string
		Nonce uint64
	}
	if len(b) == 0 || b[0] != 'w' || json.Unmarshal(b[1:], &asked) != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if from, ok := s.met[asked.From]; ok && s.set != "" {
		answer := fmt.Sprintf(`s{"owner":%q,"nonce":%d,%s}`, s.name, asked.Nonce, s.set)
		go func() { _ = s.list.SendReliable(&from, []byte(answer)) }() // it is asked again
	}
}

// has makes a set what it answers.
func (s *stranger) has(version int, nodes ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set = fmt.Sprintf(`"version":%d,"nodes":[%s]`, version, strings.Join(nodes, ","))
}

func (s *stranger) NotifyJoin(n *memberlist.Node)   { s.meet(n) }
func (s *stranger) NotifyUpdate(n *memberlist.Node) { s.meet(n) }
func (s *stranger) NotifyLeave(n *memberlist.Node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.met, n.Name)
}

func (s *stranger) meet(n *memberlist.Node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n.Name != s.name {
		s.met[n.Name] = *n
	}
}

// others gives the members beside it.
func (s *stranger) others() []memberlist.Node {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.met))
}

func (s *stranger) NodeMeta(int) []byte           { return s.meta }
func (*stranger) GetBroadcasts(int, int) [][]byte { return nil }
func (s *stranger) LocalState(bool) []byte        { return s.state() }
func (*stranger) MergeRemoteState([]byte, bool)   {}

// newStranger starts a stranger that advertises an address, with a meta if it is not nil, and joins a member.
func newStranger(t *testing.T, seed, advertise string, meta []byte, state func(name string) string) *stranger {
	t.Helper()
	quiet := log.New(io.Discard, "", 0)
	net, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{BindAddrs: []string{"127.0.0.1"}, Logger: quiet})
	must(t, err)
	port := net.GetAutoBindPort()
	start := uint64(time.Now().UnixNano())
	s := &stranger{met: map[string]memberlist.Node{}, name: gossip.NameOf(fmt.Sprintf("%s:%d", advertise, port), start), meta: gossip.EncodeMeta(start, 7)}
	s.state = func() []byte { return []byte(state(s.name)) }
	if meta != nil {
		s.meta = meta
	}
	c := memberlist.DefaultLANConfig()
	c.Name, c.Transport, c.Label, c.Logger, c.Delegate, c.Events = s.name, net, "micro-registry", quiet, s, s
	c.AdvertiseAddr, c.AdvertisePort = advertise, port
	c.DelegateProtocolVersion, c.DelegateProtocolMin, c.DelegateProtocolMax = 1, 1, 1
	s.list, err = memberlist.Create(c)
	must(t, err)
	t.Cleanup(func() { must(t, s.list.Shutdown()) })
	_, err = s.list.Join([]string{seed})
	must(t, err)
	return s
}

// say sends a message to all, by TCP, and by UDP if it fits.
func (s *stranger) say(t *testing.T, message string) {
	t.Helper()
	for _, m := range s.others() {
		must(t, s.list.SendReliable(&m, []byte(message)))
		if len(message) < 1000 {
			must(t, s.list.SendBestEffort(&m, []byte(message)))
		}
	}
}

func entryOf(id string) string {
	return fmt.Sprintf(`{"since":1,"node":{"id":%q,"service":"greeter","address":"h:1"}}`, id)
}

// What is malformed, too large, or about others than who says it, does no harm that lasts.
func TestHostile(t *testing.T) {
	t.Parallel()
	seed := testserver.FreeAddr()
	said := &journal{}
	a := open(t, gossip.Options{Seeds: []string{seed}, Logger: said.logger()})
	b := open(t, at(seed))
	must(t, a.Register(t.Context(), node("a"), 0))
	must(t, b.Register(t.Context(), node("b"), 0))
	lists(t, a, "a", "b")
	lists(t, b, "a", "b")

	// It is a member, and what it says well is believed, if it says so itself.
	s := newStranger(t, seed, "127.0.0.1", nil, func(name string) string {
		return fmt.Sprintf(`p[{"owner":%q,"version":7,"nodes":[%s]},{"owner":"nobody","version":1,"nodes":[%s]},{"owner":%q,"version":8,"nodes":[{"node":{}}]},3]`,
			name, entryOf("s"), entryOf("nobody"), name)
	})
	s.has(7, entryOf("s"))
	lists(t, a, "a", "b", "s")

	twice := entryOf("x") + "," + entryOf("x")
	for _, message := range []string{
		"", "c", "s", "w", "p[]", "x{}", "c{", "cnull", "snull", "w7", "c[]", "s{}", "\x00\xff", strings.Repeat("c", 5000),
		"c" + strings.Repeat(`{"put":[`, 100), "s" + strings.Repeat("[", 20000),
		fmt.Sprintf(`c{"owner":%q,"prev":9,"version":7}`, s.name),
		fmt.Sprintf(`c{"owner":%q,"prev":7,"version":18446744073709551615}`, s.name),
		fmt.Sprintf(`c{"owner":%q,"prev":7,"version":-1}`, s.name),
		fmt.Sprintf(`c{"owner":%q,"prev":7,"version":8,"put":[%s]}`, s.name, twice),
		fmt.Sprintf(`c{"owner":%q,"prev":7,"version":8,"put":[%s],"gone":["x"]}`, s.name, entryOf("x")),
		fmt.Sprintf(`c{"owner":%q,"prev":7,"version":8,"put":[{"since":1,"node":{"id":"x","service":"../etc","address":"h:1"}}]}`, s.name),
		fmt.Sprintf(`c{"owner":%q,"prev":7,"version":8,"put":[{"since":1,"node":{"id":"x\u001b[2J","service":"greeter","address":"h:1"}}]}`, s.name),
		fmt.Sprintf(`c{"owner":%q,"prev":7,"version":8,"put":[{"since":1,"node":null}]}`, s.name),
		fmt.Sprintf(`s{"owner":%q,"version":99,"nodes":[%s]}`, s.name, entryOf("unasked")),
		fmt.Sprintf(`s{"owner":%q,"version":99,"nodes":[%s]}`, s.name, strings.TrimSuffix(strings.Repeat(entryOf("x")+",", 5000), ",")),
		fmt.Sprintf(`s{"owner":%q,"version":99,"nodes":[{"since":1,"node":{"id":"x","service":"greeter","address":"h:1","metadata":{"k":%q}}}]}`, s.name, strings.Repeat("v", registry.MaxRecord)),
		`c{"owner":"nobody","prev":0,"version":1,"put":[` + entryOf("nobody") + `]}`,
		`w{"from":"nobody","nonce":1}`, fmt.Sprintf(`w{"from":%q,"nonce":0}`, s.name),
	} {
		s.say(t, message)
	}
	s.has(8, entryOf("s"), entryOf("t"))
	s.say(t, fmt.Sprintf(`c{"owner":%q,"prev":7,"version":8,"put":[%s]}`, s.name, entryOf("t")))
	lists(t, a, "a", "b", "s", "t")
	lists(t, b, "a", "b", "s", "t")

	// What it says of others they set right.
	for _, m := range s.others() {
		s.say(t, fmt.Sprintf(`c{"owner":%q,"prev":0,"version":1099511627776,"put":[%s],"gone":["a","b"]}`, m.Name, entryOf("forged")))
	}
	lists(t, a, "a", "b", "s", "t")
	lists(t, b, "a", "b", "s", "t")
	must(t, a.Register(t.Context(), node("a2"), 0)) // and go on
	must(t, b.Deregister(t.Context(), node("b")))
	lists(t, a, "a", "a2", "s", "t")
	lists(t, b, "a", "a2", "s", "t")

	if lines := strings.Count(said.String(), "left out"); lines == 0 || lines > 200 {
		t.Errorf("the logger was told %d times:\n%.5000s", lines, said)
	}
}

// Who has no right name, another format, or an address beyond the machine, is no member.
func TestNoMember(t *testing.T) {
	t.Parallel()
	seed := testserver.FreeAddr()
	r := open(t, at(seed))
	must(t, r.Register(t.Context(), node("a"), 0))
	state := func(name string) string {
		return fmt.Sprintf(`p[{"owner":%q,"version":7,"nodes":[%s]}]`, name, entryOf("s"))
	}
	newStranger(t, seed, "127.0.0.1", []byte("another"), state)
	newStranger(t, seed, "127.0.0.1", gossip.EncodeMeta(1, 7), state) // its name says another start
	newStranger(t, seed, "192.0.2.1", nil, state)
	good := newStranger(t, seed, "127.0.0.1", nil, func(name string) string {
		return fmt.Sprintf(`p[{"owner":%q,"version":7,"nodes":[%s]}]`, name, entryOf("t"))
	})
	lists(t, r, "a", "t")
	if n := len(good.list.Members()); n != 2 {
		t.Errorf("there are %d members, want 2", n)
	}
}
