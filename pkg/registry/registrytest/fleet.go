package registrytest

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
)

// Fleet says how processes of go-micro and of ours come to one system, on which each is to see the other's nodes.
type Fleet struct {
	// Theirs starts a process that is go-micro's registry alone: the mode "registry" of servers/gomicro.
	Theirs func(t *testing.T) Peer
	// Ours opens a registry as another process has it.
	Ours func(t *testing.T) registry.Registry
	// Spawn starts a process that registers a node of the service "greeter" with that id, and gives what kills it.
	Spawn func(t *testing.T, id string) (kill func())

	// FirstNode: go-micro registers the first node of a service alone, and no metadata of the service.
	FirstNode bool
	// NoLease: nothing tells how long a process of go-micro lives, and go-micro is not told when one of ours is killed.
	NoLease bool
}

// Peer is a process of go-micro. It answers orders by JSON; what it tells besides, by words, comes from a channel.
type Peer interface {
	Do(order string) (answer string)
	Told(word string) <-chan string
	Kill()
}

// RunFleet runs the tests of a mixed fleet as subtests of t.
func RunFleet(t *testing.T, f Fleet) {
	t.Helper()
	for _, c := range []struct {
		name string
		run  func(*fleet)
	}{
		{"theirs is seen", (*fleet).theirs},
		{"theirs is killed", (*fleet).theirsKilled},
		{"ours is seen", (*fleet).ours},
		{"ours is killed", (*fleet).oursKilled},
		{"side by side", (*fleet).sideBySide},
		{"names", (*fleet).names},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(&fleet{T: t, f: f, r: f.Ours(t), peer: f.Theirs(t)})
		})
	}
}

// fleet is a process of each.
type fleet struct {
	*testing.T
	f    Fleet
	r    registry.Registry
	peer Peer
}

// service is go-micro's, whose JSON has the same endpoints.
type service struct {
	Name      string              `json:"name"`
	Version   string              `json:"version"`
	Metadata  map[string]string   `json:"metadata"`
	Endpoints []registry.Endpoint `json:"endpoints"`
	Nodes     []serviceNode       `json:"nodes"`
}

type serviceNode struct {
	ID       string            `json:"id"`
	Address  string            `json:"address"`
	Metadata map[string]string `json:"metadata"`
}

// nodes gives a service's nodes as ours are.
func (s *service) nodes() []registry.Node {
	var all []registry.Node
	for _, n := range s.Nodes {
		m := maps.Clone(n.Metadata)
		if len(s.Metadata) > 0 {
			m = maps.Clone(s.Metadata)
			maps.Copy(m, n.Metadata)
		}
		all = append(all, registry.Node{ID: n.ID, Service: s.Name, Version: s.Version, Address: n.Address, Metadata: m, Endpoints: s.Endpoints})
	}
	return all
}

// serviceOf gives a service of theirs, with all that go-micro says of one.
func (f *fleet) serviceOf(name, version string, ids ...string) *service {
	s := &service{Name: name, Version: version, Endpoints: endpoints()}
	if !f.f.FirstNode {
		s.Metadata = map[string]string{"zone": "a", "transport": "of the service"}
	}
	for _, id := range ids {
		s.Nodes = append(s.Nodes, serviceNode{id, "10.0.0.7:18080", map[string]string{
			"broker": "http", "protocol": "mucp", "registry": "x", "server": "mucp", "transport": "http", "note": `<&> "日本"`, "empty": "",
		}})
	}
	return s
}

// endpoints are as go-micro takes them from handlers, streams and subscribers.
func endpoints() []registry.Endpoint {
	leaf := func(name, kind string) *registry.Value { return &registry.Value{Name: name, Type: kind} }
	return []registry.Endpoint{
		{Name: "Say.Hello", Metadata: map[string]string{},
			Request: &registry.Value{Name: "HelloRequest", Type: "HelloRequest", Values: []*registry.Value{
				leaf("name", "string"), leaf("tags", "[]string"),
				{Name: "of", Type: "Person", Values: []*registry.Value{leaf("age", "int32"), {Name: "home", Type: "Address", Values: []*registry.Value{leaf("zip", "map[string]<T>")}}}},
			}},
			Response: &registry.Value{Name: "HelloResponse", Type: "HelloResponse", Values: []*registry.Value{leaf("text", "string")}}},
		{Name: "Say.Count", Metadata: map[string]string{"stream": "true"}, Request: leaf("Context", "Context"), Response: leaf("Stream", "Stream")},
		{Name: "Func", Metadata: map[string]string{"subscriber": "true", "topic": "users/created"}, Request: leaf("Event", "Event")},
	}
}

// order gives go-micro's process an order that has to succeed.
func (f *fleet) order(verb string, s *service, want string) {
	f.Helper()
	text, err := json.Marshal(s)
	if err != nil {
		f.Fatal(err)
	}
	if got := f.peer.Do(verb + " " + string(text)); got != `"`+want+`"` {
		f.Fatalf("%s: go-micro says %s", verb, got)
	}
}

func (f *fleet) register(s *service) { f.Helper(); f.order("register 60", s, "registered") }
func (f *fleet) withdraw(s *service) { f.Helper(); f.order("deregister", s, "deregistered") }

// announce registers a node of ours.
func (f *fleet) announce(n registry.Node) {
	f.Helper()
	if err := f.r.Register(f.Context(), n, time.Minute); err != nil {
		f.Fatal(err)
	}
}

// finds gives the nodes that go-micro finds, by id, and how many services it makes of them.
func (f *fleet) finds(name string) (byID map[string]registry.Node, services int) {
	byID = map[string]registry.Node{}
	var all []*service
	if json.Unmarshal([]byte(f.peer.Do("get "+name)), &all) != nil {
		return byID, 0 // it found none, and says so
	}
	for _, s := range all {
		for _, n := range s.nodes() {
			byID[n.ID] = n
		}
	}
	return byID, len(all)
}

// finding waits until go-micro finds exactly these nodes.
func (f *fleet) finding(what, name string, want ...registry.Node) {
	f.Helper()
	var got map[string]registry.Node
	defer func() {
		if f.Failed() {
			f.Logf("go-micro found\n%+v\nwant\n%+v", got, want)
		}
	}()
	Eventually(f.T, "go-micro finds "+what, func() bool {
		got, _ = f.finds(name)
		return len(got) == len(want) && !slices.ContainsFunc(want, func(n registry.Node) bool { return !got[n.ID].Equal(n) })
	})
}

// lists reports whether go-micro lists a service by its name.
func (f *fleet) lists(name string) bool {
	var all []*service
	return json.Unmarshal([]byte(f.peer.Do("list")), &all) == nil && slices.ContainsFunc(all, func(s *service) bool { return s.Name == name })
}

// watch lets go-micro watch a service, and waits until it does.
func (f *fleet) watch(name string) {
	f.Helper()
	if got := f.peer.Do("watch " + name); got != `"watching"` {
		f.Fatalf("go-micro says %s", got)
	}
	n := registry.Node{ID: name + "-first", Service: name, Version: "first", Address: "127.0.0.1:1"}
	for n.Metadata = map[string]string{}; ; n.Metadata["again"] += "x" {
		f.announce(n)
		if f.event(time.Second, "create update", n.ID, n.Address) {
			break
		}
		if len(n.Metadata["again"]) > 30 {
			f.Fatal("go-micro's watch shows nothing")
		}
	}
	if err := f.r.Deregister(f.Context(), n); err != nil {
		f.Fatal(err)
	}
	f.shows("delete", n.ID, n.Address)
}

// shows waits until go-micro's watch tells, by one of some actions, of a node with an address.
func (f *fleet) shows(actions, id, address string) {
	f.Helper()
	if !f.event(patience, actions, id, address) {
		f.Fatalf("go-micro's watch does not show %s of %s at %s", actions, id, address)
	}
}

func (f *fleet) event(within time.Duration, actions, id, address string) bool {
	f.Helper()
	timeout := time.After(within)
	for {
		select {
		case text := <-f.peer.Told("event"):
			var e struct {
				Action  string
				Service service
			}
			if err := json.Unmarshal([]byte(text), &e); err != nil {
				f.Fatalf("go-micro's watch says %s: %v", text, err)
			}
			if strings.Contains(actions, e.Action) && slices.ContainsFunc(e.Service.Nodes, func(n serviceNode) bool { return n.ID == id && n.Address == address }) {
				return true
			}
		case <-timeout:
			return false
		}
	}
}

// found checks that ours find exactly these nodes, one that follows a service as well as one that is new to it.
func (f *fleet) found(name string, want ...registry.Node) {
	f.Helper()
	registry.Sort(want)
	for _, r := range []registry.Registry{f.r, f.f.Ours(f.T)} {
		got, err := r.Get(f.Context(), name)
		if err != nil && (len(want) > 0 || !errors.Is(err, registry.ErrNotFound)) {
			f.Fatal(err)
		}
		if !slices.EqualFunc(got, want, registry.Node.Equal) {
			f.Errorf("Get gave\n%s\nwant\n%s", show(got), show(want))
		}
		all, err := r.List(f.Context())
		if err != nil {
			f.Fatal(err)
		}
		all = slices.DeleteFunc(all, func(n registry.Node) bool { return n.Service != name })
		if !slices.EqualFunc(all, want, registry.Node.Equal) {
			f.Errorf("List gave\n%s\nwant\n%s", show(all), show(want))
		}
	}
}

// theirs: all that go-micro registers, changes and withdraws shows here.
func (f *fleet) theirs() {
	const name = "theirs.seen"
	sets, all := Follow(f.T, f.r, name), Follow(f.T, f.r, "")
	Expect(f.T, sets, "an empty set", IDs())
	ids := []string{"theirs-a", "theirs-b"}
	if f.f.FirstNode {
		ids = ids[:1]
	}
	s := f.serviceOf(name, "latest", ids...)
	f.register(s)
	set := Expect(f.T, sets, "theirs", IDs(ids...))
	if !slices.EqualFunc(set.Nodes, s.nodes(), registry.Node.Equal) {
		f.Errorf("the watch shows\n%s\nwant\n%s", show(set.Nodes), show(s.nodes()))
	}
	f.found(name, s.nodes()...)
	mine := s.nodes()[0]
	if err := f.r.Register(f.Context(), mine, 0); !errors.Is(err, registry.ErrConflict) {
		f.Errorf("Register of their node gave %v, want ErrConflict", err)
	}
	if err := f.r.Deregister(f.Context(), mine); !errors.Is(err, registry.ErrConflict) {
		f.Errorf("Deregister of their node gave %v, want ErrConflict", err)
	}

	s.Nodes[0].Address, s.Nodes[0].Metadata = "10.0.0.8:18081", map[string]string{"protocol": "grpc"}
	f.register(s)
	Expect(f.T, sets, "the change", func(set Set) bool { return slices.EqualFunc(set.Nodes, s.nodes(), registry.Node.Equal) })
	newer := f.serviceOf(name, "v2.0.0-rc.1+7", "theirs-c")
	newer.Endpoints = newer.Endpoints[:1]
	f.register(newer)
	Expect(f.T, sets, "two versions", IDs(append(slices.Clone(ids), "theirs-c")...))
	shown := func(s Set) bool {
		return slices.ContainsFunc(s.Nodes, func(n registry.Node) bool { return n.Equal(newer.nodes()[0]) })
	}
	Expect(f.T, all, "the newer among all", shown)
	f.found(name, append(s.nodes(), newer.nodes()...)...)

	f.withdraw(s)
	Expect(f.T, sets, "the newer alone", IDs("theirs-c"))
	f.found(name, newer.nodes()...)
	f.withdraw(newer)
	Expect(f.T, sets, "nobody", IDs())
	Expect(f.T, all, "none of it among all", func(s Set) bool { return !shown(s) })
	f.found(name)
}

// theirsKilled: what go-micro registered goes with its process, after the ttl.
func (f *fleet) theirsKilled() {
	if f.f.NoLease {
		f.Skip("go-micro tells nobody how long its nodes live")
	}
	const name = "theirs.killed"
	sets := Follow(f.T, f.r, name)
	s := f.serviceOf(name, "latest", "killed-1")
	f.order("register 2", s, "registered")
	Expect(f.T, sets, "theirs", IDs("killed-1"))
	f.peer.Kill()
	begun := time.Now()
	Expect(f.T, sets, "nobody", IDs())
	f.Logf("it was gone %v after the kill, with a ttl of 2 s", time.Since(begun).Round(time.Millisecond))
	f.found(name)
}

// ours: all that we register, change and withdraw shows at go-micro.
func (f *fleet) ours() {
	const name = "ours.seen"
	f.watch(name)
	n := registry.Node{
		ID: "ours/a-1", Service: name, Version: "latest", Address: "10.0.0.9:8080", Endpoints: endpoints(),
		Metadata: map[string]string{"protocol": "mucp", registry.MetaStarted: "2026-01-02T03:04:05Z", "größe": `<&> "日本"`, "empty": ""},
	}
	f.announce(n)
	f.shows("create update", n.ID, n.Address)
	f.finding("ours", name, n)
	if !f.lists(name) {
		f.Error("go-micro does not list it")
	}

	n.Address, n.Metadata = "10.0.0.9:8081", map[string]string{"protocol": "mucp"}
	f.announce(n)
	f.shows("create update", n.ID, n.Address)
	f.finding("the change", name, n)

	bare := registry.Node{ID: "ours-2", Service: name, Version: "v2", Address: "[fd00::7]:80"}
	other := f.f.Ours(f.T)
	if err := other.Register(f.Context(), bare, 0); err != nil {
		f.Fatal(err)
	}
	f.shows("create update", bare.ID, bare.Address)
	f.finding("two versions", name, n, bare)
	if _, services := f.finds(name); services != 2 {
		f.Errorf("go-micro makes %d services of two versions", services)
	}

	if err := other.Close(); err != nil {
		f.Fatal(err)
	}
	f.shows("delete", bare.ID, bare.Address)
	f.finding("the other alone", name, n)
	if err := f.r.Deregister(f.Context(), n); err != nil {
		f.Fatal(err)
	}
	f.shows("delete", n.ID, n.Address)
	f.finding("nobody", name)
}

// oursKilled: what a process of ours registered go-micro sees go with it.
func (f *fleet) oursKilled() {
	const name, id = "greeter", "greeter-killed"
	f.watch(name)
	kill := f.f.Spawn(f.T, id)
	var n registry.Node
	Eventually(f.T, "go-micro finds it", func() bool {
		found, _ := f.finds(name)
		n = found[id]
		return n.ID != ""
	})
	f.shows("create update", id, n.Address)
	kill()
	if !f.f.NoLease {
		f.shows("delete", id, n.Address)
	}
	f.finding("nobody", name)
}

// sideBySide: nodes of both make one service; neither takes the other's away.
func (f *fleet) sideBySide() {
	const name = "mixed"
	sets := Follow(f.T, f.r, name)
	s := f.serviceOf(name, "latest", "mixed-theirs")
	f.register(s)
	n := registry.Node{ID: "mixed-ours", Service: name, Version: "latest", Address: "10.0.0.9:8080", Endpoints: s.Endpoints, Metadata: map[string]string{"protocol": "mucp"}}
	f.announce(n)
	Expect(f.T, sets, "both", IDs("mixed-ours", "mixed-theirs"))
	f.found(name, append(s.nodes(), n)...)
	Eventually(f.T, "go-micro makes one service of both", func() bool {
		found, services := f.finds(name)
		return len(found) == 2 && services == 1 && found["mixed-ours"].Address == n.Address && found["mixed-theirs"].Address == "10.0.0.7:18080"
	})

	f.withdraw(&service{Name: name, Version: "latest", Nodes: []serviceNode{{ID: n.ID, Address: n.Address}}})
	f.announce(n) // a renewal at the latest puts it again
	Eventually(f.T, "ours is there again", func() bool {
		found, _ := f.finds(name)
		nodes, err := f.r.Get(f.Context(), name)
		return err == nil && len(nodes) == 2 && len(found) == 2
	})
	f.withdraw(s)
	Expect(f.T, sets, "ours alone", IDs("mixed-ours"))

	if f.f.NoLease {
		return // who was first keeps it, and go-micro does not learn that
	}
	taken := f.serviceOf(name, "latest", n.ID) // go-micro asks nobody whether an id is taken
	f.register(taken)
	Expect(f.T, sets, "theirs in the place of ours", func(set Set) bool { return slices.EqualFunc(set.Nodes, taken.nodes(), registry.Node.Equal) })
	if err := f.r.Register(f.Context(), n, time.Minute); !errors.Is(err, registry.ErrConflict) {
		f.Errorf("Register of an id that go-micro took gave %v, want ErrConflict", err)
	}
	f.found(name, taken.nodes()...)
}

// names: those that both have come over as they are; what is no name here is passed over.
func (f *fleet) names() {
	var all []*service
	for name, id := range map[string]string{
		"go.micro.srv.greeter": "go.micro.srv.greeter-f4b983c9-29df-41d1-905b-6c8e03ee560b",
		"Upper_case-2":         "Upper_case-2-1",
		"micro.http.broker":    "users/created/by-name-33d511ab-f383-41b6-86cd-f22b6729c68b",
	} {
		all = append(all, f.serviceOf(name, "latest", id))
	}
	for i, address := range []string{"[fd00::7]:80", "svc.example:80", "127.0.0.1:65535"} {
		all[i].Nodes[0].Address = address
	}
	for _, odd := range []string{"dom/ain", "with space", "naïve"} {
		f.order("register 60", f.serviceOf(odd, "latest", "odd-1"), "registered")
	}
	for _, s := range all {
		f.register(s)
		Eventually(f.T, s.Name+" is found", func() bool { found, _ := f.r.Get(f.Context(), s.Name); return len(found) == 1 })
		f.found(s.Name, s.nodes()...)
		f.withdraw(s)
		Eventually(f.T, s.Name+" is gone", func() bool {
			_, err := f.r.Get(f.Context(), s.Name)
			return errors.Is(err, registry.ErrNotFound)
		})
		n := s.nodes()[0]
		f.announce(n)
		f.finding("ours", n.Service, n)
	}
	nodes, err := f.r.List(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	if i := slices.IndexFunc(nodes, func(n registry.Node) bool { return !registry.ValidName(n.Service) }); i >= 0 {
		f.Errorf("List gave %+v", nodes[i])
	}
}
