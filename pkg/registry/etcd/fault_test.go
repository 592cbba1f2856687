package etcd_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/etcd"
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

// journal is a logger that keeps what it is told.
type journal struct {
	mu  sync.Mutex
	out bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.out.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.out.String()
}

func (j *journal) logger() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }

// A process that is killed takes its nodes with it: not when the hour is over that they were registered for, but with its lease.
func TestKilledProcess(t *testing.T) {
	t.Parallel()
	addr, prefix := shared.Addr(t), prefixOf(t)
	r := open(t, etcd.Options{Endpoints: []string{addr}, Prefix: prefix})
	sets := watching(t, r, "greeter")
	kill := spawn(t, addr, prefix, "mortal")
	expect(t, sets, "the node of the process", ids("mortal"))
	kill()
	expect(t, sets, "no node", ids())
}

// Whoever revokes a lease, or removes a key, sees the node again.
func TestLostLease(t *testing.T) {
	t.Parallel()
	addr, prefix := shared.Addr(t), prefixOf(t)
	etcdClient := raw(t, addr)
	r := open(t, etcd.Options{Endpoints: []string{addr}, Prefix: prefix})
	other := open(t, etcd.Options{Endpoints: []string{addr}, Prefix: prefix})
	sets := watching(t, other, "greeter")
	must(t, r.Register(t.Context(), node("a"), time.Minute))
	expect(t, sets, "the node", ids("a"))

	first, begun := leaseOf(t, etcdClient, prefix, "a"), time.Now()
	_, err := etcdClient.Revoke(t.Context(), first)
	must(t, err)
	expect(t, sets, "that the node is gone", ids())
	expect(t, sets, "the node again", ids("a"))
	if took := time.Since(begun); took > 9*time.Second { // a third of the lease is when the client renews it
		t.Errorf("the node came back after %v", took)
	}
	second := leaseOf(t, etcdClient, prefix, "a")
	if second == first || second == 0 {
		t.Errorf("the node came back under lease %x, after %x", second, first)
	}

	_, err = etcdClient.Delete(t.Context(), prefix+"greeter/a")
	must(t, err)
	expect(t, sets, "that the node is gone", ids())
	expect(t, sets, "the node again", ids("a"))
	if now := leaseOf(t, etcdClient, prefix, "a"); now != second {
		t.Errorf("the node has lease %x, want its own, %x", now, second)
	}
	must(t, r.Deregister(t.Context(), node("a")))
	expect(t, sets, "no node", ids())
	if rsp, err := etcdClient.TimeToLive(t.Context(), second); err != nil || rsp.TTL > 0 {
		t.Errorf("the lease of a deregistered node: %+v, %v", rsp, err)
	}
}

// The key of a node whose owner was cut off may be another's when it comes back. It leaves it to that one.
func TestLostToAnother(t *testing.T) {
	t.Parallel()
	addr, prefix := shared.Addr(t), prefixOf(t)
	etcdClient := raw(t, addr)
	way, said := testserver.NewRelay(t, addr), &journal{}
	r := open(t, etcd.Options{Endpoints: []string{way.Addr}, Prefix: prefix, Logger: said.logger()})
	must(t, r.Register(t.Context(), node("a"), time.Minute))
	way.Kill()
	_, err := etcdClient.Revoke(t.Context(), leaseOf(t, etcdClient, prefix, "a"))
	must(t, err)
	heir := open(t, etcd.Options{Endpoints: []string{addr}, Prefix: prefix})
	theirs := node("a")
	theirs.Address = "127.0.0.1:4712"
	must(t, heir.Register(t.Context(), theirs, time.Minute))
	way.Revive()
	eventually(t, "the first owner learns of the second", func() bool { return strings.Contains(said.String(), "another owner") })
	if err := r.Register(t.Context(), node("a"), time.Minute); !errors.Is(err, registry.ErrConflict) {
		t.Errorf("the first owner's renewal gave %v, want ErrConflict", err)
	}
	must(t, r.Close())
	if nodes, err := heir.Get(t.Context(), "greeter"); err != nil || len(nodes) != 1 || !nodes[0].Equal(theirs) {
		t.Errorf("Get gave %+v, %v", nodes, err)
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
			sets := watching(t, other, "")
			must(t, r.Register(t.Context(), node("a"), 0))
			must(t, r.Register(t.Context(), node("b"), time.Minute))
			expect(t, sets, "two nodes", ids("a", "b"))
			lease := leaseOf(t, raw(t, s.Addr), "/micro/registry/", "a")

			s.Stop(how)
			if got := expect(t, sets, "that etcd is away", func(s set) bool { return s.err != nil }); !errors.Is(got.err, registry.ErrUnavailable) {
				t.Errorf("the watch yielded %v, want ErrUnavailable", got.err)
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
			if got := expect(t, sets, "a set", func(s set) bool { return s.err == nil }); !ids("a", "b")(got) {
				t.Errorf("the first set after the restart has %+v", got.nodes)
			}
			if now := leaseOf(t, raw(t, s.Addr), "/micro/registry/", "a"); now != lease {
				t.Errorf("the node has lease %x, want that of before, %x", now, lease)
			}
			must(t, r.Deregister(t.Context(), node("a")))
			expect(t, sets, "one node less", ids("b"))
		})
	}
}

func second[T any](_ T, err error) error { return err }

// An etcd that comes back empty gets the nodes again.
func TestLostData(t *testing.T) {
	t.Parallel()
	s := own(t)
	r := open(t, etcd.Options{Endpoints: []string{s.Addr}})
	sets := watching(t, r, "greeter")
	must(t, r.Register(t.Context(), node("a"), time.Hour))
	for range 50 { // so that the new one's revision is less
		must(t, second(raw(t, s.Addr).Put(t.Context(), "/elsewhere", "x")))
	}
	expect(t, sets, "the node", ids("a"))
	s.Stop("KILL")
	expect(t, sets, "that etcd is away", func(s set) bool { return s.err != nil })
	s.Dir = t.TempDir()
	s.MustStart(t)
	expect(t, sets, "the node again", ids("a"))
	must(t, r.Register(t.Context(), node("b"), time.Hour))
	expect(t, sets, "both", ids("a", "b"))
}

// An etcd that is not there yet is told of with its address and the reason, and is found when it comes.
func TestAwayAtStart(t *testing.T) {
	t.Parallel()
	s := unstarted(t)
	said := &journal{}
	r := open(t, etcd.Options{Endpoints: []string{s.Addr}, Logger: said.logger()})
	sets := watching(t, r, "greeter")
	want := "registry: unavailable: " + s.Addr + " is not answering: connection refused"
	for what, err := range map[string]error{
		"Register": r.Register(t.Context(), node("a"), time.Minute), "Get": second(r.Get(t.Context(), "greeter")),
		"Deregister": r.Deregister(t.Context(), node("a")),
		"Watch":      expect(t, sets, "an error", func(s set) bool { return s.err != nil }).err,
	} {
		if !errors.Is(err, registry.ErrUnavailable) || !errors.Is(err, syscall.ECONNREFUSED) || err.Error() != want {
			t.Errorf("%s gave %v, want %s", what, err, want)
		}
	}
	s.MustStart(t)
	expect(t, sets, "an empty set", ids())
	eventually(t, "a node can be registered", func() bool { return r.Register(t.Context(), node("a"), time.Minute) == nil })
	expect(t, sets, "the node", ids("a"))
	if log := said.String(); strings.Count(log, "etcd is away") != 1 || strings.Count(log, "etcd is back") != 1 {
		t.Errorf("the logger was told\n%s", log)
	}
}

// Close while etcd is away says so, and does not wait for it.
func TestCloseWhileAway(t *testing.T) {
	t.Parallel()
	addr, prefix := shared.Addr(t), prefixOf(t)
	way := testserver.NewRelay(t, addr)
	r := open(t, etcd.Options{Endpoints: []string{way.Addr}, Prefix: prefix})
	must(t, r.Register(t.Context(), node("a"), time.Hour))
	sets := watching(t, r, "greeter")
	expect(t, sets, "the node", ids("a"))
	way.Kill()
	begun := time.Now()
	if err := r.Close(); !errors.Is(err, registry.ErrUnavailable) || !strings.Contains(err.Error(), "lapse: 1") {
		t.Errorf("Close gave %v", err)
	}
	if took := time.Since(begun); took > wait {
		t.Errorf("Close took %v", took)
	}
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
			sets, all := watching(t, r, "greeter"), watching(t, r, "")
			must(t, writer.Register(t.Context(), node("a"), 0))
			must(t, writer.Register(t.Context(), node("b"), 0))
			for _, w := range []<-chan set{sets, all} {
				expect(t, w, "two nodes", ids("a", "b"))
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
				for _, w := range []<-chan set{sets, all} {
					expect(t, w, "what changed while it was cut off", func(s set) bool {
						if s.err != nil {
							t.Errorf("round %d: the watch yielded %v", round, s.err)
						}
						return ids("b", "c")(s)
					})
				}
				must(t, writer.Deregister(t.Context(), node("c")))
				must(t, writer.Register(t.Context(), node("a"), 0))
				for _, w := range []<-chan set{sets, all} {
					expect(t, w, "the next changes", ids("a", "b"))
				}
			}
		})
	}
}

// A node whose record is older than what etcd has compacted is looked after all the same.
func TestHeldSinceLongAgo(t *testing.T) {
	t.Parallel()
	s := own(t)
	etcdClient, way, said := raw(t, s.Addr), testserver.NewRelay(t, s.Addr), &journal{}
	r := open(t, etcd.Options{Endpoints: []string{way.Addr}, Logger: said.logger()})
	must(t, r.Register(t.Context(), node("a"), time.Hour))
	must(t, second(etcdClient.Put(t.Context(), "/elsewhere", "x")))
	rsp, err := etcdClient.Put(t.Context(), "/elsewhere", "y")
	must(t, err)
	must(t, second(etcdClient.Compact(t.Context(), rsp.Header.Revision)))
	way.Kill()
	eventually(t, "it is away", func() bool { return strings.Contains(said.String(), "away") })
	way.Revive()
	eventually(t, "it is back", func() bool { return strings.Contains(said.String(), "back") })
	first := leaseOf(t, etcdClient, "/micro/registry/", "a")
	must(t, second(etcdClient.Revoke(t.Context(), first)))
	eventually(t, "the node is put again", func() bool { now := leaseOf(t, etcdClient, "/micro/registry/", "a"); return now != 0 && now != first })
}

// A server that accepts connections and says nothing does not hold up a caller for ever.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	way := testserver.NewRelay(t, shared.Addr(t))
	way.Hold()
	r := open(t, etcd.Options{Endpoints: []string{way.Addr}, Prefix: prefixOf(t), Timeout: 300 * time.Millisecond})
	if _, err := r.Get(t.Context(), "greeter"); !errors.Is(err, registry.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Get gave %v, want ErrUnavailable and DeadlineExceeded", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Register(ctx, node("a"), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("Register gave %v, want Canceled", err)
	}
	way.Release()
	eventually(t, "it answers", func() bool { return r.Register(t.Context(), node("a"), 0) == nil })
}

// Of several members one that is there is enough.
func TestSeveralMembers(t *testing.T) {
	t.Parallel()
	addr, prefix := shared.Addr(t), prefixOf(t)
	first, last := testserver.NewRelay(t, addr), testserver.NewRelay(t, addr)
	r := open(t, etcd.Options{Endpoints: []string{first.Addr, testserver.FreeAddr(), last.Addr}, Prefix: prefix})
	sets := watching(t, r, "greeter")
	must(t, r.Register(t.Context(), node("a"), 0))
	expect(t, sets, "the node", ids("a"))
	first.Kill()
	changed := node("a")
	changed.Version = "2"
	eventually(t, "the other member takes the change", func() bool { return r.Register(t.Context(), changed, 0) == nil })
	expect(t, sets, "the change", func(s set) bool { return len(s.nodes) == 1 && s.nodes[0].Equal(changed) })
}

// Names that are odd, and what is none at all.
func TestOddNames(t *testing.T) {
	t.Parallel()
	addr, prefix := shared.Addr(t), prefixOf(t)
	r := open(t, etcd.Options{Endpoints: []string{addr}, Prefix: prefix})
	expect(t, watching(t, r, "../x"), "an empty set", ids())
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
	expect(t, watching(t, r, "greeter"), "the first", ids("a/b"))
}

// Without a majority what is known is still found, a watch says that it may be old, and nothing can be registered. With one
// all is as it was.
func TestNoMajority(t *testing.T) {
	t.Parallel()
	members, endpoints := cluster(t, 3)
	r := open(t, etcd.Options{Endpoints: endpoints, Timeout: 2 * time.Second})
	sets := watching(t, r, "greeter")
	eventually(t, "a node can be registered", func() bool { return r.Register(t.Context(), node("a"), 0) == nil })
	expect(t, sets, "the node", ids("a"))

	members[0].Stop("KILL")
	eventually(t, "two members take a node", func() bool { return r.Register(t.Context(), node("b"), 0) == nil })
	expect(t, sets, "both", ids("a", "b"))

	members[1].Stop("KILL")
	if got := expect(t, sets, "an error", func(s set) bool { return s.err != nil }); !errors.Is(got.err, registry.ErrUnavailable) {
		t.Errorf("the watch yielded %v, want ErrUnavailable", got.err)
	}
	if err := r.Register(t.Context(), node("c"), 0); !errors.Is(err, registry.ErrUnavailable) {
		t.Errorf("Register gave %v, want ErrUnavailable", err)
	}
	eventually(t, "the nodes are found", func() bool { nodes, err := r.Get(t.Context(), "greeter"); return err == nil && len(nodes) == 2 })
	late := open(t, etcd.Options{Endpoints: endpoints})
	expect(t, watching(t, late, "greeter"), "the nodes", ids("a", "b"))

	members[1].MustStart(t)
	expect(t, sets, "the nodes again", ids("a", "b"))
	eventually(t, "a node can be registered", func() bool { return r.Register(t.Context(), node("c"), 0) == nil })
	expect(t, sets, "all", ids("a", "b", "c"))
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
