package multi_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/commands"
	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/micro"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/multi"
	"github.com/cb02dfca/micro/pkg/registry/registrytest"
)

// ownerVar makes the test binary another process: an owner of the node "x" of a service, in the registries of the URLs after it.
const ownerVar = "MULTI_TEST_OWNER"

// service is of this run of the tests: all that is on a machine shares its mDNS.
var service = fmt.Sprint("greeter-", os.Getpid())

func nodeOf(service string) registry.Node {
	n := node("x")
	n.ID, n.Service = service+"-x", service
	return n
}

func ownInAll(service string, urls []string) error {
	r, err := joinURLs(urls)
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	for said := false; ; said = true {
		if err := r.Register(context.Background(), nodeOf(service), 30*time.Second); err != nil {
			return err
		}
		if !said {
			fmt.Println("ready")
		}
		select {
		case <-ended:
			return r.Close()
		case <-time.After(time.Second):
		}
	}
}

// joinURLs opens registries by URL, as a program does.
func joinURLs(urls []string) (*multi.Registry, error) {
	openers := commands.DefaultBackends().Registries
	var members []multi.Member
	for i, url := range urls {
		members = append(members, multi.Member{Name: fmt.Sprint("member ", i), Open: func(ctx context.Context) (registry.Registry, error) { return openers.Open(ctx, url) }})
	}
	return multi.New(members...)
}

func joined(t *testing.T, urls ...string) *multi.Registry {
	t.Helper()
	r, err := joinURLs(urls)
	must(t, err)
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// has reports whether a registry shows the node of the owner's process.
func has(r registry.Finder) bool {
	nodes, err := r.Get(context.Background(), service)
	return err == nil && len(nodes) == 1 && nodes[0].ID == service+"-x" && nodes[0].Metadata[registry.MetaRegistered] == ""
}

// start starts a real server, and gives its URL.
func start(t *testing.T, scheme string) (*testserver.Server, string) {
	t.Helper()
	kinds := map[string]struct {
		missing func() error
		spec    testserver.Spec
	}{
		"etcd":      {testserver.EtcdMissing, testserver.Etcd()},
		"consul":    {testserver.ConsulMissing, testserver.Consul()},
		"zookeeper": {testserver.ZooKeeperMissing, testserver.ZooKeeper()},
		"nats":      {testserver.NATSMissing, testserver.NATS()},
	}
	if err := kinds[scheme].missing(); err != nil {
		testserver.Skip(t, err.Error())
	}
	s := testserver.Own(t, kinds[scheme].spec)
	return s, scheme + "://" + s.Addr
}

func owner(t *testing.T, urls ...string) *exec.Cmd {
	t.Helper()
	cmd, line := process(t, ownerVar+"="+service+" "+strings.Join(urls, " "))
	if line != "ready" {
		t.Fatal(line)
	}
	return cmd
}

// TestKilledOwner: a process that two registries keep for different times is killed. The first that tells ends it in both, for who watches
// and for who asks.
func TestKilledOwner(t *testing.T) {
	t.Parallel()
	for _, pair := range [][2]string{{"etcd", "nats"}, {"nats", "etcd"}, {"consul", "nats"}, {"nats", "consul"}, {"zookeeper", "etcd"}, {"etcd", "gossip"}, {"nats", "mdns"}} {
		t.Run(pair[0]+" before "+pair[1], func(t *testing.T) {
			t.Parallel()
			_, short := start(t, pair[0])
			short += "?ttl=3s"
			long := "gossip://" + testserver.FreeAddr()
			switch pair[1] {
			case "mdns":
				long = "mdns://"
			case "gossip":
				door := joined(t, long) // somebody who stays
				must(t, door.Register(t.Context(), registry.Node{ID: "door", Service: "door", Address: "127.0.0.1:1"}, 0))
			default:
				_, long = start(t, pair[1])
				long += "?ttl=20s"
			}
			dying := owner(t, short, long)
			watcher, asker, kept := joined(t, short, long), joined(t, short, long), joined(t, long)
			sets := registrytest.Follow(t, watcher, service)
			registrytest.Expect(t, sets, "the node", registrytest.IDs(service+"-x"))
			registrytest.Eventually(t, "who asks finds the node", func() bool { return has(asker) && has(kept) })
			time.Sleep(time.Second) // what comes late of the members is there

			must(t, dying.Process.Kill())
			killed := time.Now()
			registrytest.Expect(t, sets, "that it is gone", registrytest.IDs())
			watched, lingers := time.Since(killed), has(kept)
			registrytest.Eventually(t, "who asks finds it no more", func() bool { return !has(asker) })
			t.Logf("gone after %v by the watch, %v by asking; the copy is there: %v", watched, time.Since(killed), lingers)
			if watched > 10*time.Second {
				t.Errorf("it was gone after %v", watched)
			}
			if !lingers && strings.Contains(long, "ttl") { // the others find out by themselves
				t.Error("there was no copy any more that had to be hidden")
			}
			if len(sets) > 0 {
				t.Errorf("it came back: %v", <-sets)
			}
		})
	}
}

// TestOwnerLosesOneRegistry: the owner cannot reach a registry for longer than its lease there, or that is killed and comes back, with
// nothing where it keeps nothing. The node is shown throughout.
func TestOwnerLosesOneRegistry(t *testing.T) {
	t.Parallel()
	for _, pair := range [][2]string{{"etcd", "nats"}, {"consul", "nats"}, {"nats", "etcd"}, {"zookeeper", "nats"}} {
		t.Run(pair[0]+" beside "+pair[1], func(t *testing.T) {
			t.Parallel()
			server, one := start(t, pair[0])
			_, other := start(t, pair[1])
			way := testserver.NewRelay(t, server.Addr)
			owner(t, pair[0]+"://"+way.Addr+"?ttl=9s", other)
			watcher, asker, first := joined(t, one, other), joined(t, one, other), joined(t, one)
			sets := registrytest.Follow(t, watcher, service)
			registrytest.Expect(t, sets, "the node", registrytest.IDs(service+"-x"))
			registrytest.Eventually(t, "all find the node", func() bool { return has(asker) && has(first) })
			shown := func(when string) {
				t.Helper()
				if !has(asker) {
					t.Fatalf("who asks does not find it %s", when)
				}
				for len(sets) > 0 {
					if s := <-sets; s.Err != nil || len(s.Nodes) != 1 {
						t.Fatalf("the watch shows %+v %s", s, when)
					}
				}
			}
			for ok, deadline := false, time.Now().Add(30*time.Second); !ok; time.Sleep(20 * time.Millisecond) {
				way.Kill() // whoever comes in between, too
				if ok = !has(first); time.Now().After(deadline) {
					t.Fatal("its lease does not end")
				}
				shown("while its owner is cut off")
			}
			for range 30 {
				time.Sleep(50 * time.Millisecond)
				shown("when its lease has ended")
			}
			way.Revive()
			registrytest.Eventually(t, "it is registered again", func() bool { return has(first) })
			shown("when its owner is back")

			server.Stop("KILL")
			for range 40 {
				time.Sleep(50 * time.Millisecond)
				shown("while the server is gone")
			}
			server.MustStart(t)
			registrytest.Eventually(t, "the server that is back has it", func() bool { shown("when the server is back"); return has(first) })
			for range 30 {
				time.Sleep(50 * time.Millisecond)
				shown("at the end")
			}
		})
	}
}

type note struct {
	Text string `json:"text"`
}

// TestTwoOfAKind: two systems of one kind in one process, each by its URL: services keep to their own, and a multi shows both.
func TestTwoOfAKind(t *testing.T) { // not parallel: it sets the environment
	for _, scheme := range []string{"etcd", "nats", "consul", "zookeeper"} {
		t.Run(scheme, func(t *testing.T) {
			_, first := start(t, scheme)
			_, second := start(t, scheme)
			drivers := micro.Drivers{Registries: commands.DefaultBackends().Registries}
			serve := func(url, name string) {
				t.Setenv(micro.EnvRegistry, url)
				ready := make(chan struct{})
				s, err := micro.New(name, micro.Signals(false), micro.Grace(0), micro.FromEnv(drivers), micro.AfterStart(func(context.Context) error { close(ready); return nil }))
				must(t, err)
				must(t, micro.Handle(s, "Notes.Whose", func(context.Context, *note) (*note, error) { return &note{name}, nil }))
				ctx, stop := context.WithCancel(context.Background())
				done := make(chan error, 1)
				go func() { done <- s.Run(ctx) }()
				t.Cleanup(func() {
					stop()
					if err := <-done; err != nil {
						t.Error(err)
					}
				})
				select {
				case <-ready:
				case err := <-done:
					t.Fatal(err)
				}
			}
			serve(first, "one")
			serve(second, "two")
			for url, name := range map[string]string{first: "one", second: "two"} {
				r := joined(t, url)
				registrytest.Eventually(t, "a registry has its own service alone", func() bool {
					nodes, err := r.List(t.Context())
					return err == nil && len(nodes) == 1 && nodes[0].Service == name
				})
			}
			both := joined(t, first, second)
			caller, err := micro.New("caller", micro.Registry(both))
			must(t, err)
			defer caller.Close()
			for _, name := range []string{"one", "two"} {
				if got, err := client.Call[note](t.Context(), caller.Client(), name, "Notes.Whose", &note{}); err != nil || got.Text != name {
					t.Errorf("a call of %s: %+v, %v", name, got, err)
				}
			}
			must(t, both.Register(t.Context(), node("x"), time.Minute))
			for _, url := range []string{first, second} {
				registrytest.Eventually(t, "both have a node of the multi", func() bool {
					nodes, err := joined(t, url).Get(t.Context(), "greeter")
					return err == nil && len(nodes) == 1
				})
			}
			must(t, both.Deregister(t.Context(), node("x")))
		})
	}
}
