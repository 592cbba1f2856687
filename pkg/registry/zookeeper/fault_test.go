package zookeeper_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/registrytest"
	"github.com/cb02dfca/micro/pkg/registry/zookeeper"
)

// ownerOf gives the session that a node lives by, 0 where there is none.
func ownerOf(t *testing.T, c *zk.Conn, prefix, id string) int64 {
	t.Helper()
	_, stat, err := c.Get(prefix + "/greeter/" + id)
	if errors.Is(err, zk.ErrNoNode) {
		return 0
	}
	must(t, err)
	return stat.EphemeralOwner
}

// A process that is killed takes its nodes with it: not when the hour is over that they were registered for, but with its lease.
func TestKilledProcess(t *testing.T) {
	t.Parallel()
	addr, prefix := shared.Addr(t), prefixOf(t)
	r := open(t, zookeeper.Options{Endpoints: []string{addr}, Prefix: prefix})
	sets := registrytest.Follow(t, r, "greeter")
	kill := registrytest.Spawn(t, node("mortal"), addr, prefix)
	registrytest.Expect(t, sets, "the node of the process", registrytest.IDs("mortal"))
	kill()
	registrytest.Expect(t, sets, "no node", registrytest.IDs())
}

// A session that is lost is made anew, and the node put again: when the process was cut off for longer than it lasts, and when somebody
// closed it.
func TestLostSession(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"cut off", "closed"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			addr, prefix := shared.Addr(t), prefixOf(t)
			way, client := testserver.NewRelay(t, addr), raw(t, addr)
			r := open(t, zookeeper.Options{Endpoints: []string{way.Addr}, Prefix: prefix, TTL: 2 * time.Second})
			other := open(t, zookeeper.Options{Endpoints: []string{addr}, Prefix: prefix})
			sets := registrytest.Follow(t, other, "greeter")
			must(t, r.Register(t.Context(), node("a"), time.Hour))
			must(t, r.Register(t.Context(), node("brief"), time.Second)) // another session, and over before it could come back
			registrytest.Expect(t, sets, "the nodes", registrytest.IDs("a", "brief"))
			first := ownerOf(t, client, prefix, "a")
			way.Hold()
			if how == "closed" {
				closeSession(t, addr, first)
			}
			registrytest.Expect(t, sets, "no node", registrytest.IDs())
			way.Release()
			registrytest.Expect(t, sets, "the node again", registrytest.IDs("a"))
			if second := ownerOf(t, client, prefix, "a"); second == 0 || second == first {
				t.Errorf("the node came back under session %x, after %x", second, first)
			}
			changed := node("a")
			changed.Version = "2"
			must(t, r.Register(t.Context(), changed, time.Hour))
			registrytest.Expect(t, sets, "the change", func(s registrytest.Set) bool { return len(s.Nodes) == 1 && s.Nodes[0].Equal(changed) })
			must(t, r.Deregister(t.Context(), changed))
			registrytest.Expect(t, sets, "no node", registrytest.IDs())
		})
	}
}

// closeSession closes another client's session. Its password is made from its id.
func closeSession(t *testing.T, addr string, id int64) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	must(t, err)
	defer c.Close()
	var connect []byte
	connect = binary.BigEndian.AppendUint32(connect, 0)    // protocol
	connect = binary.BigEndian.AppendUint64(connect, 0)    // last change seen
	connect = binary.BigEndian.AppendUint32(connect, 2000) // timeout
	connect = binary.BigEndian.AppendUint64(connect, uint64(id))
	connect = binary.BigEndian.AppendUint32(connect, 16)
	connect = append(connect, sessionPassword(id)...)
	closing := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 1), ^uint32(10)) // xid, -11
	send := func(packet []byte) {
		must(t, second(c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(packet))), packet...))))
	}
	send(connect)
	answer := make([]byte, 4+36) // length, protocol, timeout, id, password
	must(t, second(io.ReadFull(c, answer)))
	if got := int64(binary.BigEndian.Uint64(answer[12:])); got != id {
		t.Fatalf("the session %x is refused", id)
	}
	send(closing)
	_, _ = io.Copy(io.Discard, c) // until it is closed
}

// sessionPassword is what ZooKeeper makes for a session by java.util.Random.
func sessionPassword(id int64) []byte {
	const a, m = 0x5DEECE66D, 1<<48 - 1
	seed := (uint64(id) ^ 0xB3415C00 ^ a) & m
	var out []byte
	for range 4 {
		seed = (seed*a + 0xB) & m
		out = binary.LittleEndian.AppendUint32(out, uint32(seed>>16))
	}
	return out
}

// A node that somebody deletes or changes is put right: by the next renewal, and without one after a while.
func TestByHand(t *testing.T) {
	t.Parallel()
	addr, prefix := shared.Addr(t), prefixOf(t)
	client := raw(t, addr)
	r := open(t, zookeeper.Options{Endpoints: []string{addr}, Prefix: prefix, TTL: 3 * time.Second})
	other := open(t, zookeeper.Options{Endpoints: []string{addr}, Prefix: prefix})
	sets := registrytest.Follow(t, other, "greeter")
	must(t, r.Register(t.Context(), node("a"), time.Minute))
	registrytest.Expect(t, sets, "the node", registrytest.IDs("a"))
	for _, renew := range []bool{true, false} {
		must(t, client.Delete(prefix+"/greeter/a", -1))
		registrytest.Expect(t, sets, "no node", registrytest.IDs())
		if renew {
			must(t, r.Register(t.Context(), node("a"), time.Minute))
		}
		registrytest.Expect(t, sets, "the node again", registrytest.IDs("a"))
	}
	must(t, second(client.Set(prefix+"/greeter/a", []byte("junk"), -1)))
	registrytest.Expect(t, sets, "no node", registrytest.IDs())
	registrytest.Expect(t, sets, "the node again", registrytest.IDs("a"))
	must(t, r.Deregister(t.Context(), node("a")))
	registrytest.Expect(t, sets, "no node", registrytest.IDs())
}

// A ZooKeeper that is stopped and started anew is an error for a while, and loses nothing.
func TestRestart(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"KILL", "TERM"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			s := own(t)
			r := open(t, zookeeper.Options{Endpoints: []string{s.Addr}})
			other := open(t, zookeeper.Options{Endpoints: []string{s.Addr}})
			sets := registrytest.Follow(t, other, "")
			must(t, r.Register(t.Context(), node("a"), 0))
			must(t, r.Register(t.Context(), node("b"), time.Minute))
			registrytest.Expect(t, sets, "two nodes", registrytest.IDs("a", "b"))
			owner := ownerOf(t, raw(t, s.Addr), "/micro-registry", "a")

			s.Stop(how)
			if got := registrytest.Expect(t, sets, "that it is away", func(s registrytest.Set) bool { return s.Err != nil }); !errors.Is(got.Err, registry.ErrUnavailable) {
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
			if now := ownerOf(t, raw(t, s.Addr), "/micro-registry", "a"); now != owner {
				t.Errorf("the node has session %x, want that of before, %x", now, owner)
			}
			must(t, r.Deregister(t.Context(), node("a")))
			registrytest.Expect(t, sets, "one node less", registrytest.IDs("b"))
		})
	}
}

func second[T any](_ T, err error) error { return err }

// A ZooKeeper that comes back empty, and so refuses who has seen more than it has, gets the nodes again.
func TestLostData(t *testing.T) {
	t.Parallel()
	s := own(t)
	r := open(t, zookeeper.Options{Endpoints: []string{s.Addr}, TTL: 2 * time.Second})
	sets := registrytest.Follow(t, r, "greeter")
	must(t, r.Register(t.Context(), node("a"), time.Hour))
	registrytest.Expect(t, sets, "the node", registrytest.IDs("a"))
	s.Stop("KILL")
	registrytest.Expect(t, sets, "that it is away", func(s registrytest.Set) bool { return s.Err != nil })
	s.Dir = t.TempDir()
	s.MustStart(t)
	registrytest.Expect(t, sets, "the node again", registrytest.IDs("a"))
	must(t, r.Register(t.Context(), node("b"), time.Hour))
	registrytest.Expect(t, sets, "both", registrytest.IDs("a", "b"))
}

// A connection that breaks is nothing that a watch tells of: it shows what changed meanwhile, of every kind.
func TestWatchResumes(t *testing.T) {
	t.Parallel()
	addr, prefix := shared.Addr(t), prefixOf(t)
	writer := open(t, zookeeper.Options{Endpoints: []string{addr}, Prefix: prefix})
	way := testserver.NewRelay(t, addr)
	r := open(t, zookeeper.Options{Endpoints: []string{way.Addr}, Prefix: prefix})
	sets, all := registrytest.Follow(t, r, "greeter"), registrytest.Follow(t, r, "")
	must(t, writer.Register(t.Context(), node("a"), 0))
	must(t, writer.Register(t.Context(), node("b"), 0))
	for _, w := range []<-chan registrytest.Set{sets, all} {
		registrytest.Expect(t, w, "two nodes", registrytest.IDs("a", "b"))
	}
	for round := range 5 {
		way.Hold()
		must(t, writer.Deregister(t.Context(), node("a")))
		must(t, writer.Register(t.Context(), node("c"), 0))
		changed := node("b")
		changed.Version = fmt.Sprint("in round ", round)
		must(t, writer.Register(t.Context(), changed, 0))
		way.Release()
		for _, w := range []<-chan registrytest.Set{sets, all} {
			registrytest.Expect(t, w, "what changed while it was cut off", func(s registrytest.Set) bool {
				if s.Err != nil {
					t.Errorf("round %d: the watch yielded %v", round, s.Err)
				}
				return registrytest.IDs("b", "c")(s) && s.Nodes[0].Equal(changed)
			})
		}
		must(t, writer.Deregister(t.Context(), node("c")))
		must(t, writer.Register(t.Context(), node("a"), 0))
		for _, w := range []<-chan registrytest.Set{sets, all} {
			registrytest.Expect(t, w, "the next changes", registrytest.IDs("a", "b"))
		}
	}
}

// Whatever comes between, the last set that a watch shows is what stands: nodes change all the time while its connection breaks, and
// while their owner's does.
func TestWatchMissesNothing(t *testing.T) {
	t.Parallel()
	addr, prefix := shared.Addr(t), prefixOf(t)
	mine, theirs := testserver.NewRelay(t, addr), testserver.NewRelay(t, addr)
	r := open(t, zookeeper.Options{Endpoints: []string{mine.Addr}, Prefix: prefix})
	writer := open(t, zookeeper.Options{Endpoints: []string{theirs.Addr}, Prefix: prefix})
	sets, all := registrytest.Follow(t, r, "greeter"), registrytest.Follow(t, r, "")
	const nodes, rounds = 5, 30
	last := make([]registry.Node, nodes)
	var writing sync.WaitGroup
	for i := range nodes {
		writing.Go(func() {
			for round := range rounds {
				n := node(fmt.Sprint("node-", i))
				n.Version = fmt.Sprint(round)
				if err := writer.Register(t.Context(), n, time.Minute); err != nil {
					t.Errorf("Register: %v", err)
				}
				if round%3 == i%3 && round < rounds-1 {
					if err := writer.Deregister(t.Context(), n); err != nil {
						t.Errorf("Deregister: %v", err)
					}
				}
				if i == 0 && round%10 == 5 {
					for _, way := range []*testserver.Relay{mine, theirs} {
						way.Hold()
						way.Release()
					}
				}
				last[i] = n
			}
		})
	}
	writing.Wait()
	for _, w := range []<-chan registrytest.Set{sets, all} {
		registrytest.Expect(t, w, "what was written last", func(s registrytest.Set) bool {
			return slices.EqualFunc(s.Nodes, last, registry.Node.Equal)
		})
	}
}

// What a change costs a watch does not grow with the set: a request for what changed, and one for the names where one came or went.
func TestWatchCost(t *testing.T) {
	t.Parallel()
	s := own(t)
	client := raw(t, s.Addr)
	const size, changes = 1000, 50
	record := func(i, version int) []byte {
		return fmt.Appendf(nil, `{"name":"greeter","version":"%d","nodes":[{"id":"node-%04d","address":"127.0.0.1:1"}]}`, version, i)
	}
	for _, dir := range []string{"/micro-registry", "/micro-registry/greeter"} {
		must(t, second(client.Create(dir, nil, 0, zk.WorldACL(zk.PermAll))))
	}
	for i := range size {
		must(t, second(client.Create(fmt.Sprintf("/micro-registry/greeter/node-%04d", i), record(i, 0), 0, zk.WorldACL(zk.PermAll))))
	}
	r := open(t, zookeeper.Options{Endpoints: []string{s.Addr}})
	for _, service := range []string{"greeter", ""} {
		registrytest.Expect(t, registrytest.Follow(t, r, service), "all nodes", func(s registrytest.Set) bool { return len(s.Nodes) == size })
	}
	sets := registrytest.Follow(t, r, "greeter")
	registrytest.Expect(t, sets, "all nodes", func(s registrytest.Set) bool { return len(s.Nodes) == size })
	before := received(t, s.Addr)
	for i := range changes {
		must(t, second(client.Set(fmt.Sprintf("/micro-registry/greeter/node-%04d", i), record(i, 1), -1)))
	}
	must(t, client.Delete(fmt.Sprintf("/micro-registry/greeter/node-%04d", size-1), -1))
	registrytest.Expect(t, sets, "the changes", func(s registrytest.Set) bool { return len(s.Nodes) == size-1 && s.Nodes[changes-1].Version == "1" })
	// Three watches read each change; what comes beside are pings, and questions like this one.
	if took := received(t, s.Addr) - before; took > 5*changes {
		t.Errorf("%d changes took %d requests", changes+1, took)
	}
}

// received is how many requests a server has had.
func received(t *testing.T, addr string) (n int) {
	t.Helper()
	_, rest, _ := strings.Cut(word(addr, "srvr"), "Received: ")
	must(t, second(fmt.Sscan(rest, &n)))
	return n
}

// Names that are odd, and what is none at all.
func TestOddNames(t *testing.T) {
	t.Parallel()
	addr, prefix := shared.Addr(t), prefixOf(t)
	r := open(t, zookeeper.Options{Endpoints: []string{addr}, Prefix: prefix})
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

// Without a majority there is nothing that ZooKeeper answers: watches say so, and keep what they know. With one all is as it was.
func TestNoMajority(t *testing.T) {
	t.Parallel()
	members, endpoints := cluster(t, 3)
	r := open(t, zookeeper.Options{Endpoints: endpoints, Timeout: 2 * time.Second})
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
	members[1].MustStart(t)
	registrytest.Expect(t, sets, "the nodes again", registrytest.IDs("a", "b"))
	registrytest.Eventually(t, "a node can be registered", func() bool { return r.Register(t.Context(), node("c"), 0) == nil })
	registrytest.Expect(t, sets, "all", registrytest.IDs("a", "b", "c"))
}

// cluster starts servers that make one ensemble.
func cluster(t *testing.T, size int) (members []*testserver.Server, endpoints []string) {
	t.Helper()
	var lines []string
	for i := range size {
		_, vote, _ := net.SplitHostPort(testserver.FreeAddr())
		lines = append(lines, fmt.Sprintf("server.%d=%s:%s", i+1, testserver.FreeAddr(), vote))
	}
	var starting sync.WaitGroup
	errs := make([]error, size)
	for i := range size {
		s := unstarted(t, lines...)
		data := filepath.Join(s.Dir, "data")
		must(t, os.MkdirAll(data, 0o700))
		must(t, os.WriteFile(filepath.Join(data, "myid"), fmt.Append(nil, i+1), 0o600))
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
		Name:      "ZooKeeper",
		Shared:    func(t *testing.T) (addr, prefix string) { return shared.Addr(t), prefixOf(t) },
		Unstarted: func(t *testing.T) *testserver.Server { return unstarted(t) },
		Open: func(t *testing.T, w registrytest.Way) registry.Registry {
			return open(t, zookeeper.Options{Endpoints: w.Addrs, Prefix: w.Prefix, Timeout: w.Timeout, TTL: w.TTL, Logger: w.Logger})
		},
		Several: true,
	})
}
