package consul_test

import (
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/consul"
	"github.com/cb02dfca/micro/pkg/registry/registrytest"
)

// A process that is killed takes its nodes with it: not when the hour is over that they were registered for, but with their check.
func TestKilledProcess(t *testing.T) {
	t.Parallel()
	addr := addrOf(t)
	r := open(t, consul.Options{Address: addr})
	sets := registrytest.Follow(t, r, "greeter")
	all := registrytest.Follow(t, r, "")
	kill := registrytest.Spawn(t, node("mortal"), addr)
	registrytest.Expect(t, sets, "the node of the process", registrytest.IDs("mortal"))
	registrytest.Expect(t, all, "the node of the process", registrytest.IDs("mortal"))
	kill()
	killed := time.Now()
	registrytest.Expect(t, sets, "no node", registrytest.IDs())
	if took := time.Since(killed); took > childTTL+time.Second {
		t.Errorf("the node was gone %v after the process was killed, its check lasts %v", took, childTTL)
	}
	registrytest.Expect(t, all, "no node", registrytest.IDs())
}

// An agent that is killed and started anew without what it knew gets the nodes again, from those who hold them.
func TestRestart(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"KILL", "TERM"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			s, said := own(t), &registrytest.Journal{}
			r := open(t, consul.Options{Address: s.Addr, Logger: said.Logger()})
			other := open(t, consul.Options{Address: s.Addr})
			sets, all := registrytest.Follow(t, other, "greeter"), registrytest.Follow(t, other, "")
			must(t, r.Register(t.Context(), node("a"), 0))
			must(t, r.Register(t.Context(), node("b"), time.Hour))
			registrytest.Expect(t, sets, "two nodes", registrytest.IDs("a", "b"))
			registrytest.Expect(t, all, "two nodes", registrytest.IDs("a", "b"))

			s.Stop(how)
			for _, watch := range []<-chan registrytest.Set{sets, all} {
				if got := registrytest.Expect(t, watch, "that consul is away", failed); !errors.Is(got.Err, registry.ErrUnavailable) {
					t.Errorf("the watch yielded %v, want ErrUnavailable", got.Err)
				}
			}
			for what, err := range map[string]error{
				"a renewal": r.Register(t.Context(), node("b"), time.Hour), "a registration": r.Register(t.Context(), node("c"), time.Minute),
				"Get": second(r.Get(t.Context(), "greeter")), "List": second(r.List(t.Context())),
				"Deregister": other.Deregister(t.Context(), node("a")),
			} {
				if !errors.Is(err, registry.ErrUnavailable) || !strings.Contains(err.Error(), s.Addr+" is not answering") {
					t.Errorf("%s gave %v, want ErrUnavailable and the address", what, err)
				}
			}

			s.MustStart(t)
			begun := time.Now()
			registrytest.Expect(t, sets, "the nodes again", registrytest.IDs("a", "b"))
			registrytest.Expect(t, all, "the nodes again", registrytest.IDs("a", "b"))
			if took := time.Since(begun); took > 7*time.Second { // a quarter of the check, after which it is passed at the earliest, is 7.5 s
				t.Errorf("the nodes came back %v after consul", took)
			}
			if log := said.String(); strings.Count(log, "consul is away") != 1 || strings.Count(log, "consul is back") != 1 {
				t.Errorf("the logger was told\n%s", log)
			}

			for range 2 { // so fast that nobody may have noticed the first time
				s.Stop(how)
				s.MustStart(t)
			}
			must(t, r.Register(t.Context(), node("c"), time.Hour))
			registrytest.Expect(t, sets, "all nodes", registrytest.IDs("a", "b", "c"))
			must(t, r.Deregister(t.Context(), node("a")))
			registrytest.Expect(t, sets, "one node less", registrytest.IDs("b", "c"))
		})
	}
}

// A node that somebody removes, or changes, is put again.
func TestMended(t *testing.T) {
	t.Parallel()
	addr := addrOf(t)
	r := open(t, consul.Options{Address: addr})
	sets := registrytest.Follow(t, open(t, consul.Options{Address: addr}), "greeter")
	must(t, r.Register(t.Context(), node("a"), time.Hour))
	registrytest.Expect(t, sets, "the node", registrytest.IDs("a"))
	before := serviceOf(t, addr, "a")
	for what, change := range map[string]func(){
		"removed": func() { request(http.MethodPut, "http://"+addr+"/v1/agent/service/deregister/a", "") },
		"changed": func() {
			put(t, addr, "a", fmt.Sprintf(`{"ID":"a","Name":"greeter","Port":1,"Tags":["v=2"],"Meta":{%q:%q}}`, consul.MetaOwner, before.Meta[consul.MetaOwner]))
		},
		"without a check": func() { request(http.MethodPut, "http://"+addr+"/v1/agent/check/deregister/service:a", "") },
	} {
		change()
		if what == "without a check" { // of which the agent does not tell
			must(t, r.Register(t.Context(), node("a"), time.Hour))
		}
		registrytest.Eventually(t, "the node is put again that was "+what, func() bool {
			code, _ := request(http.MethodPut, "http://"+addr+"/v1/agent/check/pass/service:a", "")
			return code == http.StatusOK && reflect.DeepEqual(serviceOf(t, addr, "a"), before)
		})
	}
	registrytest.Eventually(t, "it is found", func() bool {
		nodes, err := r.Get(t.Context(), "greeter")
		return err == nil && len(nodes) == 1 && nodes[0].Equal(node("a"))
	})

	request(http.MethodPut, "http://"+addr+"/v1/agent/service/maintenance/a?enable=true", "")
	registrytest.Expect(t, sets, "that a node in maintenance is left out", registrytest.IDs())
	request(http.MethodPut, "http://"+addr+"/v1/agent/service/maintenance/a?enable=false", "")
	registrytest.Expect(t, sets, "the node again", registrytest.IDs("a"))
	must(t, r.Deregister(t.Context(), node("a")))
	registrytest.Expect(t, sets, "no node", registrytest.IDs())
}

// Neither a node in maintenance, nor one of a go-micro without a check, is anybody's.
func TestTakenIDs(t *testing.T) {
	t.Parallel()
	addr := addrOf(t)
	r, other := open(t, consul.Options{Address: addr}), open(t, consul.Options{Address: addr})
	must(t, r.Register(t.Context(), node("a"), 0))
	request(http.MethodPut, "http://"+addr+"/v1/agent/service/maintenance/a?enable=true", "")
	put(t, addr, "b", `{"ID":"b","Name":"greeter","Port":80,"Tags":["v=1"]}`)
	put(t, addr, "c", `{"ID":"c","Name":"greeter","Port":80,"Tags":["v=1"],"Checks":[{"TTL":"1m","Status":"critical"},{"TTL":"1m","Status":"passing"}]}`)
	for id, want := range map[string]error{"a": registry.ErrConflict, "b": registry.ErrConflict, "c": nil} {
		if err := other.Register(t.Context(), node(id), 0); !errors.Is(err, want) {
			t.Errorf("Register of %s gave %v, want %v", id, err, want)
		}
	}
	if err := other.Deregister(t.Context(), node("a")); !errors.Is(err, registry.ErrConflict) {
		t.Errorf("Deregister of a node in maintenance gave %v, want ErrConflict", err)
	}
	registrytest.Expect(t, registrytest.Follow(t, other, "greeter"), "what passes", registrytest.IDs("b", "c"))
}

// A connection that breaks, and is there again at once, is nothing that a watch tells of.
func TestWatchResumes(t *testing.T) {
	t.Parallel()
	addr := addrOf(t)
	way := testserver.NewRelay(t, addr)
	sets := registrytest.Follow(t, open(t, consul.Options{Address: way.Addr}), "greeter")
	registrytest.Expect(t, sets, "an empty set", registrytest.IDs())
	r := open(t, consul.Options{Address: addr})
	for i := range 3 {
		way.Hold() // what is under way breaks off
		way.Release()
		n := node("a")
		n.Version = fmt.Sprint(i)
		must(t, r.Register(t.Context(), n, 0))
		for seen := false; !seen; {
			got := registrytest.Expect(t, sets, "anything", func(registrytest.Set) bool { return true })
			if got.Err != nil {
				t.Fatalf("the watch yielded %v", got.Err)
			}
			seen = len(got.Nodes) == 1 && got.Nodes[0].Equal(n)
		}
	}
}

// Names and addresses that are odd, and what is none at all.
func TestOddNames(t *testing.T) {
	t.Parallel()
	addr := addrOf(t)
	r := open(t, consul.Options{Address: addr})
	registrytest.Expect(t, registrytest.Follow(t, r, "../x"), "an empty set", registrytest.IDs())
	with := func(change func(*registry.Node)) registry.Node { n := node("a"); change(&n); return n }
	for name, n := range map[string]registry.Node{
		"an empty part":       with(func(n *registry.Node) { n.ID = "a//b" }),
		"a point":             with(func(n *registry.Node) { n.ID = "a/./b" }),
		"every address":       with(func(n *registry.Node) { n.Address = "0.0.0.0:80" }),
		"every address, long": with(func(n *registry.Node) { n.Address = "[::]:80" }),
	} {
		if err := r.Register(t.Context(), n, 0); !errors.Is(err, registry.ErrInvalid) {
			t.Errorf("%s gave %v, want ErrInvalid", name, err)
		}
		must(t, r.Deregister(t.Context(), n))
	}
	if err := r.Register(t.Context(), node("a"), -1); !errors.Is(err, registry.ErrInvalid) {
		t.Errorf("a negative ttl gave %v", err)
	}
	must(t, r.Deregister(t.Context(), registry.Node{ID: "../x", Service: "greeter"}))

	var want []registry.Node
	for i, address := range []string{"10.0.0.1:1", "[::1]:65535", "host.example:80", "host", "10.0.0.1:080", "memory-1", "h:http"} {
		n := node(fmt.Sprint("n", i))
		n.Address = address
		n.Metadata = map[string]string{}
		for k := range registry.MaxMetadata { // with its owner's it would be one more than Consul takes
			n.Metadata[fmt.Sprint("k", k)] = strings.Repeat("v", 400+8*k)
		}
		must(t, r.Register(t.Context(), n, 0))
		want = append(want, n)
	}
	sets := registrytest.Follow(t, r, "greeter")
	got := registrytest.Expect(t, sets, "all nodes", func(s registrytest.Set) bool { return len(s.Nodes) == len(want) })
	for i, n := range got.Nodes {
		if !n.Equal(want[i]) {
			t.Errorf("read\n%+v\nwant\n%+v", n, want[i])
		}
	}
	// Consul does not tell names apart that are the same in lower case.
	upper := node("upper")
	upper.Service = "Greeter"
	must(t, r.Register(t.Context(), upper, 0))
	registrytest.Eventually(t, "it is found", func() bool { nodes, err := r.Get(t.Context(), "Greeter"); return err == nil && len(nodes) == 1 })
	if nodes, err := r.Get(t.Context(), "greeter"); err != nil || len(nodes) != len(want) {
		t.Errorf("Get gave %d nodes, %v", len(nodes), err)
	}
}

// What holds of each backend whose server is away.
func TestRemote(t *testing.T) {
	registrytest.RunRemote(t, registrytest.Remote{
		Name:      "consul",
		Shared:    func(t *testing.T) (addr, prefix string) { return addrOf(t), "" },
		Unstarted: func(t *testing.T) *testserver.Server { return unstarted(t) },
		Open: func(t *testing.T, w registrytest.Way) registry.Registry {
			return open(t, consul.Options{Address: w.Addrs[0], Timeout: w.Timeout, TTL: w.TTL, Logger: w.Logger})
		},
	})
}
