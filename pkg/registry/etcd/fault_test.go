package etcd_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/etcd"
	"github.com/cb02dfca/micro/pkg/registry/registrytest"
)

// leaseOf gives the lease that a node's key hangs on, 0 where there is no key.
func leaseOf(t *testing.T, c *clientv3.Client, prefix, id string) clientv3.LeaseID {
	t.Helper()
	rsp, err := c.Get(t.Context(), prefix+"greeter/"+id)
	must(t, err)
	if len(rsp.Kvs) == 0 {
		return 0
	}
	return clientv3.LeaseID(rsp.Kvs[0].Lease)
}

// A process that is killed takes its nodes with it: not when the hour is over that they were registered for, but with its lease.
func TestKilledProcess(t *testing.T) {
	t.Parallel()
	addr, prefix := shared.Addr(t), prefixOf(t)
	r := open(t, etcd.Options{Endpoints: []string{addr}, Prefix: prefix})
	sets := registrytest.Follow(t, r, "greeter")
	kill := registrytest.Spawn(t, node("mortal"), addr, prefix)
	registrytest.Expect(t, sets, "the node of the process", registrytest.IDs("mortal"))
	kill()
	registrytest.Expect(t, sets, "no node", registrytest.IDs())
}

// Whoever revokes a lease, or removes a key, sees the node again.
func TestLostLease(t *testing.T) {
	t.Parallel()
	addr, prefix := shared.Addr(t), prefixOf(t)
	etcdClient := raw(t, addr)
	r := open(t, etcd.Options{Endpoints: []string{addr}, Prefix: prefix})
	other := open(t, etcd.Options{Endpoints: []string{addr}, Prefix: prefix})
	sets := registrytest.Follow(t, other, "greeter")
	must(t, r.Register(t.Context(), node("a"), time.Minute))
	registrytest.Expect(t, sets, "the node", registrytest.IDs("a"))

	first, begun := leaseOf(t, etcdClient, prefix, "a"), time.Now()
	_, err := etcdClient.Revoke(t.Context(), first)
	must(t, err)
	registrytest.Expect(t, sets, "that the node is gone", registrytest.IDs())
	registrytest.Expect(t, sets, "the node again", registrytest.IDs("a"))
	if took := time.Since(begun); took > 9*time.Second { // a third of the lease is when the client renews it
		t.Errorf("the node came back after %v", took)
	}
	second := leaseOf(t, etcdClient, prefix, "a")
	if second == first || second == 0 {
		t.Errorf("the node came back under lease %x, after %x", second, first)
	}

	_, err = etcdClient.Delete(t.Context(), prefix+"greeter/a")
	must(t, err)
	registrytest.Expect(t, sets, "that the node is gone", registrytest.IDs())
	registrytest.Expect(t, sets, "the node again", registrytest.IDs("a"))
	if now := leaseOf(t, etcdClient, prefix, "a"); now != second {
		t.Errorf("the node has lease %x, want its own, %x", now, second)
	}
	must(t, r.Deregister(t.Context(), node("a")))
	registrytest.Expect(t, sets, "no node", registrytest.IDs())
	if rsp, err := etcdClient.TimeToLive(t.Context(), second); err != nil || rsp.TTL > 0 {
		t.Errorf("the lease of a deregistered node: %+v, %v", rsp, err)
	}
}

// An etcd that is stopped and started anew is an error for a while, and loses nothing.
func TestRestart(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"KILL", "TERM"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			s := own(t)
			r := open(t, etcd.Options{Endpoints: []string{s.Addr}})
			other := open(t, etcd.Options{Endpoints: []string{s.Addr}})
			sets := registrytest.Follow(t, other, "")
			must(t, r.Register(t.Context(), node("a"), 0))
			must(t, r.Register(t.Context(), node("b"), time.Minute))
			registrytest.Expect(t, sets, "two nodes", registrytest.IDs("a", "b"))
			lease := leaseOf(t, raw(t, s.Addr), "/micro/registry/", "a")

			s.Stop(how)
			if got := registrytest.Expect(t, sets, "that etcd is away", func(s registrytest.Set) bool { return s.Err != nil }); !errors.Is(got.Err, registry.ErrUnavailable) {
				t.Errorf("the watch yielded %v, want ErrUnavailable", got.Err)
			}
			for what, err := range map[string]error{
				"a renewal": r.Register(t.Context(), node("b"), time.Minute), "a registration": r.Register(t.Context(), node("c"), time.Minute),
				"Get": second(r.Get(t.Context(), "greeter")), "List": second(r.List(t.Context())),
				"Deregister": other.Deregister(t.Context(), node("a")),
			} {
				if !errors.Is(err, registry.ErrUnavailable) || !strings.Contains(err.Error(), s.Addr+" is not answering") {
					t.Errorf("%s gave %v, want ErrUnavailable and the address", what, err)
				}
			}

			s.MustStart(t)
			if got := registrytest.Expect(t, sets, "a set", func(s registrytest.Set) bool { return s.Err == nil }); !registrytest.IDs("a", "b")(got) {
				t.Errorf("the first set after the restart has %+v", got.Nodes)
			}
			if now := leaseOf(t, raw(t, s.Addr), "/micro/registry/", "a"); now != lease {
				t.Errorf("the node has lease %x, want that of before, %x", now, lease)
			}
			must(t, r.Deregister(t.Context(), node("a")))
			registrytest.Expect(t, sets, "one node less", registrytest.IDs("b"))
		})
	}
}

func second[T any](_ T, err error) error { return err }

// An etcd that comes back empty gets the nodes again.
func TestLostData(t *testing.T) {
	t.Parallel()
	s := own(t)
	r := open(t, etcd.Options{Endpoints: []string{s.Addr}})
	sets := registrytest.Follow(t, r, "greeter")
	must(t, r.Register(t.Context(), node("a"), time.Hour))
	for range 50 { // so that the new one's revision is less
		must(t, second(raw(t, s.Addr).Put(t.Context(), "/elsewhere", "x")))
	}
	registrytest.Expect(t, sets, "the node", registrytest.IDs("a"))
	s.Stop("KILL")
	registrytest.Expect(t, sets, "that etcd is away", func(s registrytest.Set) bool { return s.Err != nil })
	s.Dir = t.TempDir()
	s.MustStart(t)
	registrytest.Expect(t, sets, "the node again", registrytest.IDs("a"))
	must(t, r.Register(t.Context(), node("b"), time.Hour))
	registrytest.Expect(t, sets, "both", registrytest.IDs("a", "b"))
}

// A connection that breaks is nothing that a watch tells of: it goes on where it was. What etcd has compacted in the meantime is listed anew.
func TestWatchResumes(t *testing.T) {
	t.Parallel()
	for _, compact := range []bool{false, true} {
		t.Run(map[bool]string{false: "by revision", true: "after a compaction"}[compact], func(t *testing.T) {
			t.Parallel()
			s := own(t) // a compaction is of the whole store
			etcdClient := raw(t, s.Addr)
			writer := open(t, etcd.Options{Endpoints: []string{s.Addr}})
			way := testserver.NewRelay(t, s.Addr)
			r := open(t, etcd.Options{Endpoints: []string{way.Addr}})
			sets, all := registrytest.Follow(t, r, "greeter"), registrytest.Follow(t, r, "")
			must(t, writer.Register(t.Context(), node("a"), 0))
			must(t, writer.Register(t.Context(), node("b"), 0))
			for _, w := range []<-chan registrytest.Set{sets, all} {
				registrytest.Expect(t, w, "two nodes", registrytest.IDs("a", "b"))
			}
			for round := range 3 {
				way.Hold()
				must(t, writer.Deregister(t.Context(), node("a")))
				must(t, writer.Register(t.Context(), node("c"), 0))
				if compact {
					rsp, err := etcdClient.Get(t.Context(), "any")
					must(t, err)
					_, err = etcdClient.Compact(t.Context(), rsp.Header.Revision, clientv3.WithCompactPhysical())
					must(t, err)
				}
				way.Release()
				for _, w := range []<-chan registrytest.Set{sets, all} {
					registrytest.Expect(t, w, "what changed while it was cut off", func(s registrytest.Set) bool {
						if s.Err != nil {
							t.Errorf("round %d: the watch yielded %v", round, s.Err)
						}
						return registrytest.IDs("b", "c")(s)
					})
				}
				must(t, writer.Deregister(t.Context(), node("c")))
				must(t, writer.Register(t.Context(), node("a"), 0))
				for _, w := range []<-chan registrytest.Set{sets, all} {
					registrytest.Expect(t, w, "the next changes", registrytest.IDs("a", "b"))
				}
			}
		})
	}
}

// A node whose record is older than what etcd has compacted is looked after all the same.
func TestHeldSinceLongAgo(t *testing.T) {
	t.Parallel()
	s := own(t)
	etcdClient, way, said := raw(t, s.Addr), testserver.NewRelay(t, s.Addr), &registrytest.Journal{}
	r := open(t, etcd.Options{Endpoints: []string{way.Addr}, Logger: said.Logger()})
	must(t, r.Register(t.Context(), node("a"), time.Hour))
	must(t, second(etcdClient.Put(t.Context(), "/elsewhere", "x")))
	rsp, err := etcdClient.Put(t.Context(), "/elsewhere", "y")
	must(t, err)
	must(t, second(etcdClient.Compact(t.Context(), rsp.Header.Revision)))
	way.Kill()
	registrytest.Eventually(t, "it is away", func() bool { return strings.Contains(said.String(), "away") })
	way.Revive()
	registrytest.Eventually(t, "it is back", func() bool { return strings.Contains(said.String(), "back") })
	first := leaseOf(t, etcdClient, "/micro/registry/", "a")
	must(t, second(etcdClient.Revoke(t.Context(), first)))
	registrytest.Eventually(t, "the node is put again", func() bool { now := leaseOf(t, etcdClient, "/micro/registry/", "a"); return now != 0 && now != first })
}

// Names that are odd, and what is none at all.
func TestOddNames(t *testing.T) {
	t.Parallel()
	addr, prefix := shared.Addr(t), prefixOf(t)
	r := open(t, etcd.Options{Endpoints: []string{addr}, Prefix: prefix})
	registrytest.Expect(t, registrytest.Follow(t, r, "../x"), "an empty set", registrytest.IDs())
	if err := r.Register(t.Context(), node("a"), -1); !errors.Is(err, registry.ErrInvalid) {
		t.Errorf("a negative ttl gave %v", err)
	}
	must(t, r.Deregister(t.Context(), registry.Node{ID: "../x", Service: "greeter"}))

	// Two ids that make one key: the first has it.
	must(t, r.Register(t.Context(), node("a/b"), 0))
	if err := r.Register(t.Context(), node("a-b"), 0); !errors.Is(err, registry.ErrConflict) {
		t.Errorf("the second id of a key gave %v, want ErrConflict", err)
	}
	must(t, r.Deregister(t.Context(), node("a-b")))
	registrytest.Expect(t, registrytest.Follow(t, r, "greeter"), "the first", registrytest.IDs("a/b"))
}

// Without a majority what is known is still found, a watch says that it may be old, and nothing can be registered. With one
// all is as it was.
func TestNoMajority(t *testing.T) {
	t.Parallel()
	members, endpoints := cluster(t, 3)
	r := open(t, etcd.Options{Endpoints: endpoints, Timeout: 2 * time.Second})
	sets := registrytest.Follow(t, r, "greeter")
	registrytest.Eventually(t, "a node can be registered", func() bool { return r.Register(t.Context(), node("a"), 0) == nil })
	registrytest.Expect(t, sets, "the node", registrytest.IDs("a"))

	members[0].Stop("KILL")
	registrytest.Eventually(t, "two members take a node", func() bool { return r.Register(t.Context(), node("b"), 0) == nil })
	registrytest.Expect(t, sets, "both", registrytest.IDs("a", "b"))

	members[1].Stop("KILL")
	if got := registrytest.Expect(t, sets, "an error", func(s registrytest.Set) bool { return s.Err != nil }); !errors.Is(got.Err, registry.ErrUnavailable) {
		t.Errorf("the watch yielded %v, want ErrUnavailable", got.Err)
	}
	if err := r.Register(t.Context(), node("c"), 0); !errors.Is(err, registry.ErrUnavailable) {
		t.Errorf("Register gave %v, want ErrUnavailable", err)
	}
	registrytest.Eventually(t, "the nodes are found", func() bool { nodes, err := r.Get(t.Context(), "greeter"); return err == nil && len(nodes) == 2 })
	late := open(t, etcd.Options{Endpoints: endpoints})
	registrytest.Expect(t, registrytest.Follow(t, late, "greeter"), "the nodes", registrytest.IDs("a", "b"))

	members[1].MustStart(t)
	registrytest.Expect(t, sets, "the nodes again", registrytest.IDs("a", "b"))
	registrytest.Eventually(t, "a node can be registered", func() bool { return r.Register(t.Context(), node("c"), 0) == nil })
	registrytest.Expect(t, sets, "all", registrytest.IDs("a", "b", "c"))
}

// cluster starts servers that make one etcd.
func cluster(t *testing.T, size int) (members []*testserver.Server, endpoints []string) {
	t.Helper()
	var peers, names []string
	for i := range size {
		peers = append(peers, "http://"+testserver.FreeAddr())
		names = append(names, fmt.Sprintf("m%d=%s", i, peers[i]))
	}
	var starting sync.WaitGroup
	errs := make([]error, size)
	for i := range size {
		s := unstarted(t, "--name", fmt.Sprintf("m%d", i), "--listen-peer-urls", peers[i], "--initial-advertise-peer-urls", peers[i],
			"--initial-cluster", strings.Join(names, ","))
		members, endpoints = append(members, s), append(endpoints, s.Addr)
		starting.Go(func() { errs[i] = s.Start() }) // one waits for the others
	}
	starting.Wait()
	must(t, errors.Join(errs...))
	return members, endpoints
}

// What holds of each backend whose server is away.
func TestRemote(t *testing.T) {
	registrytest.RunRemote(t, registrytest.Remote{
		Name:      "etcd",
		Shared:    func(t *testing.T) (addr, prefix string) { return shared.Addr(t), prefixOf(t) },
		Unstarted: func(t *testing.T) *testserver.Server { return unstarted(t) },
		Open: func(t *testing.T, w registrytest.Way) registry.Registry {
			return open(t, etcd.Options{Endpoints: w.Addrs, Prefix: w.Prefix, Timeout: w.Timeout, TTL: w.TTL, Logger: w.Logger})
		},
		Several: true,
	})
}
