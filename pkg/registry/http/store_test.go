package http_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cb02dfca/micro/commands"
	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/http"
	registryserver "github.com/cb02dfca/micro/pkg/registry/http/server"
	"github.com/cb02dfca/micro/pkg/registry/registrytest"
)

// storeTTL is how long a store keeps the nodes of a killed server, in these tests.
const storeTTL = 3 * time.Second

// store is a system that nodes may stand in.
type store struct {
	name    string
	missing func() error
	spec    func(config ...string) testserver.Spec
	// separate gives what a URL has after the address, so that those who use one server do not see each other. Nil: they would.
	separate func(t *testing.T) string

	// Of a server that asks for a login: its configuration, what is done when it runs, and the environment of who has the right one and
	// a wrong one. refusal is what the latter is told.
	guard        []string
	prepare      func(t *testing.T, addr string)
	right, wrong []string
	refusal      string
}

const storePassword = "s3cret-word"

// The tokens of a guarded Consul.
const (
	rootToken  = "00000000-5ec3-4e00-8000-000000000001"
	wrongToken = "00000000-5ec3-4e00-8000-000000000002"
)

var storeNumber atomic.Int64

func unique() string { return fmt.Sprintf("test-%d-%d", os.Getpid(), storeNumber.Add(1)) }

func stores() []store {
	return []store{
		{
			name: "etcd", missing: testserver.EtcdMissing, spec: testserver.Etcd,
			separate: func(*testing.T) string { return "/" + unique() + "/" },
			prepare: func(t *testing.T, addr string) {
				for _, step := range [][2]string{
					{"user/add", `{"name":"root","password":"root-` + storePassword + `"}`}, {"user/grant", `{"user":"root","role":"root"}`},
					{"role/add", `{"name":"registry"}`},
					{"role/grant", `{"name":"registry","perm":{"permType":"READWRITE","key":"L21pY3JvL3JlZ2lzdHJ5Lw==","range_end":"L21pY3JvL3JlZ2lzdHJ5MA=="}}`},
					{"user/add", `{"name":"svc","password":"` + storePassword + `"}`}, {"user/grant", `{"user":"svc","role":"registry"}`},
					{"enable", `{}`},
				} {
					if code, said := testserver.Request("POST", "http://"+addr+"/v3/auth/"+step[0], step[1]); code != 200 {
						t.Fatalf("etcd: %s: %d %s", step[0], code, said)
					}
				}
			},
			right:   []string{"ETCD_USERNAME=svc", "ETCD_PASSWORD=" + storePassword},
			wrong:   []string{"ETCD_USERNAME=svc", "ETCD_PASSWORD=wrong-" + storePassword},
			refusal: `user "svc": wrong name or password`,
		},
		{
			name: "consul", missing: testserver.ConsulMissing, spec: testserver.Consul,
			guard: []string{"-hcl", `acl { enabled = true, default_policy = "deny", tokens { initial_management = "` + rootToken + `", agent = "` + rootToken + `" } }`},
			prepare: func(t *testing.T, addr string) {
				eventually(t, "Consul does not know its own token", func() bool {
					code, _ := testserver.Request("GET", "http://"+addr+"/v1/acl/token/self", "", "X-Consul-Token", rootToken)
					return code == 200
				})
			},
			right: []string{"CONSUL_HTTP_TOKEN=" + rootToken}, wrong: []string{"CONSUL_HTTP_TOKEN=" + wrongToken},
			refusal: "it does not know the token of this program",
		},
		{
			name: "zookeeper", missing: testserver.ZooKeeperMissing, spec: testserver.ZooKeeper,
			separate: func(*testing.T) string { return "/" + unique() },
			right:    []string{"ZK_USERNAME=svc", "ZK_PASSWORD=" + storePassword},
			wrong:    []string{"ZK_USERNAME=svc", "ZK_PASSWORD=wrong-" + storePassword},
			refusal:  `user "svc" may not read and write below /micro-registry`,
		},
		{
			name: "nats", missing: testserver.NATSMissing, spec: testserver.NATS,
			separate: func(*testing.T) string { return "?prefix=" + unique() },
			guard:    []string{`authorization: {user: svc, password: "` + storePassword + `"}`},
			right:    []string{"NATS_USERNAME=svc", "NATS_PASSWORD=" + storePassword},
			wrong:    []string{"NATS_USERNAME=svc", "NATS_PASSWORD=wrong-" + storePassword},
			refusal:  `user "svc": wrong name or password`,
		},
	}
}

// onStores runs a test on each of them that is there.
func onStores(t *testing.T, f func(t *testing.T, s store)) {
	t.Helper()
	for _, s := range stores() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			if err := s.missing(); err != nil {
				testserver.Skip(t, err.Error())
			}
			f(t, s)
		})
	}
}

// TestStoreConformance: each client uses another one of three servers before one store.
func TestStoreConformance(t *testing.T) {
	t.Parallel()
	onStores(t, func(t *testing.T, s store) {
		openers := commands.DefaultBackends().Registries
		pool := servers{t: t, s: s}
		t.Cleanup(pool.stop)
		t.Run("suite", func(t *testing.T) { // ends before the servers do
			registrytest.Run(t, registrytest.Harness{
				New: func(t *testing.T) registrytest.Open {
					url := pool.url(t)
					var urls []string
					for range 3 {
						r, err := openers.Open(t.Context(), url)
						must(t, err)
						t.Cleanup(func() { _ = r.Close() })
						live := httptest.NewServer(handler(t, registryserver.Options{MinTTL: time.Millisecond, MaxWrites: 10_000, Registry: r, RegistryName: s.name}))
						t.Cleanup(live.Close)
						t.Cleanup(live.CloseClientConnections)
						urls = append(urls, live.URL)
					}
					var turn atomic.Uint64
					return func(t *testing.T) registry.Registry {
						r, err := http.New(http.Options{URL: urls[turn.Add(1)%uint64(len(urls))]})
						must(t, err)
						return r
					}
				},
				Shared: true, Endpoints: true, Conflicts: true, Crowd: 50, TTL: time.Second, Wait: 20 * time.Second,
			})
		})
	})
}

// servers are those of one store that tests of the suite use: one for all, or, where they cannot be kept apart, one for each at a time.
type servers struct {
	t *testing.T
	s store

	mu   sync.Mutex
	free []*testserver.Server
	all  []*testserver.Server
}

func (p *servers) url(t *testing.T) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.free) == 0 {
		s := testserver.New(p.t.TempDir(), p.s.spec())
		s.MustStart(t)
		p.free, p.all = append(p.free, s), append(p.all, s)
	}
	one := p.free[0]
	if p.s.separate != nil {
		return p.s.name + "://" + one.Addr + p.s.separate(t)
	}
	p.free = p.free[1:]
	t.Cleanup(func() { // what the test has left lapses
		r, err := commands.DefaultBackends().Registries.Open(context.Background(), p.s.name+"://"+one.Addr)
		must(t, err)
		defer r.Close()
		eventually(t, "something is left in the store", func() bool { nodes, err := r.List(context.Background()); return err == nil && len(nodes) == 0 })
		p.mu.Lock()
		defer p.mu.Unlock()
		p.free = append(p.free, one)
	})
	return p.s.name + "://" + one.Addr
}

func (p *servers) stop() {
	for _, s := range p.all {
		s.Stop("KILL")
	}
}

// commandRole is the environment variable that makes the test binary the command: its arguments, one in a line.
const commandRole = "REGISTRY_TEST_COMMAND"

func commandMain() int {
	go func() { // the end of the tests
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(5)
	}()
	d := commands.System(strings.Split(os.Getenv(commandRole), "\n"))
	d.Stdin = strings.NewReader("")
	return commands.Main(context.Background(), d)
}

// program is a command that runs.
type program struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	stdout *bufio.Reader
	said   *registrytest.Journal // standard error
}

func run(t *testing.T, env []string, args ...string) *program {
	t.Helper()
	p := &program{cmd: exec.Command(os.Args[0], "-test.run=^$"), said: &registrytest.Journal{}}
	p.cmd.Env = append(append(os.Environ(), env...), commandRole+"="+strings.Join(args, "\n"))
	p.cmd.Stderr = p.said
	stdin, err := p.cmd.StdinPipe()
	must(t, err)
	stdout, err := p.cmd.StdoutPipe()
	must(t, err)
	p.stdin, p.stdout = stdin, bufio.NewReader(stdout)
	must(t, p.cmd.Start())
	t.Cleanup(p.kill)
	return p
}

func (p *program) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.stdin.Close()
	_ = p.cmd.Wait()
}

// front starts a server before a store, and gives its address.
func front(t *testing.T, store string, env ...string) (p *program, addr string) {
	t.Helper()
	p = run(t, env, "registry", "--store", store, "--address", ":0", "-o", "name")
	line, err := p.stdout.ReadString('\n')
	if err != nil {
		t.Fatalf("the server said nothing: %v\n%s", err, p.said)
	}
	return p, strings.TrimPrefix(strings.TrimSpace(line), "http://")
}

func clientOf(t *testing.T, addr string) *http.Registry {
	t.Helper()
	r, err := http.New(http.Options{URL: "http://" + addr})
	must(t, err)
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func named(id string) registry.Node {
	n := node(id)
	n.ID = id
	return n
}

func listed(nodes []registry.Node) string {
	var ids []string
	for _, n := range nodes {
		ids = append(ids, n.ID)
	}
	return strings.Join(ids, " ")
}

func stateOf(addr string) string {
	_, body := testserver.Request("GET", "http://"+addr+"/healthz", "")
	var h registryserver.Health
	if err := json.Unmarshal([]byte(body), &h); err != nil {
		return err.Error()
	}
	return h.Status
}

// put registers, or renews, a node as somebody who has a secret does.
func put(addr, id, version, secret string, ttl time.Duration) int {
	code, _ := testserver.Request("PUT", "http://"+addr+"/v1/nodes/"+id+"?ttl="+ttl.String(),
		fmt.Sprintf(`{"service":"greeter","version":%q,"address":"127.0.0.1:1"}`, version), "Content-Type", "application/json", "Micro-Lease", secret)
	return code
}

// TestStores runs two servers before each store.
func TestStores(t *testing.T) {
	t.Parallel()
	onStores(t, func(t *testing.T, s store) {
		behind := testserver.Own(t, s.spec())
		url := s.name + "://" + behind.Addr + "?ttl=" + storeTTL.String()
		_, a := front(t, url)
		_, b := front(t, url)
		ra, rb := clientOf(t, a), clientOf(t, b)
		sets := registrytest.Follow(t, rb, "greeter")

		must(t, ra.Register(t.Context(), named("x"), 0))
		registrytest.Expect(t, sets, "what the other server took", registrytest.IDs("x"))
		nodes, err := rb.Get(t.Context(), "greeter")
		if err != nil || listed(nodes) != "x" || len(nodes[0].Metadata) > 0 {
			t.Errorf("Get by the other: %+v, %v", nodes, err)
		}
		if nodes, err := rb.List(t.Context()); err != nil || !slices.ContainsFunc(nodes, func(n registry.Node) bool { return n.ID == "x" }) {
			t.Errorf("List by the other: %s, %v", listed(nodes), err)
		}
		if err := rb.Register(t.Context(), named("x"), 0); !errors.Is(err, registry.ErrConflict) {
			t.Errorf("another client registers the id: %v", err)
		}
		if err := rb.Deregister(t.Context(), named("x")); !errors.Is(err, registry.ErrConflict) {
			t.Errorf("another client takes it away: %v", err)
		}

		// An owner whose requests go to either.
		for i, addr := range []string{a, b, a, a, b} {
			version := fmt.Sprint(i)
			if code := put(addr, "y", version, secretA, time.Minute); code != 200 && code != 201 {
				t.Errorf("change %d: %d", i, code)
			}
			for _, other := range []string{a, b} {
				eventually(t, "a server does not show the change", func() bool {
					_, body := testserver.Request("GET", "http://"+other+"/v1/nodes/y", "")
					return strings.Contains(body, fmt.Sprintf(`"version":%q`, version))
				})
			}
		}
		if code, _ := testserver.Request("DELETE", "http://"+a+"/v1/nodes/y?service=greeter", "", "Micro-Lease", secretA); code != 204 {
			t.Errorf("it is taken away by the server that does not hold it: %d", code)
		}
		registrytest.Expect(t, sets, "that y has gone", registrytest.IDs("x"))

		// Renewals by either hold; without them the node goes, in its ttl.
		const ttl = 2 * time.Second
		var last time.Time
		for i, start := 0, time.Now(); time.Since(start) < 3*ttl; i++ {
			last = time.Now()
			if code := put([]string{a, b}[i%2], "z", "1", secretA, ttl); code != 200 && code != 201 {
				t.Errorf("renewal %d: %d", i, code)
			}
			if i == 0 {
				registrytest.Expect(t, sets, "z", registrytest.IDs("x", "z"))
			}
			time.Sleep(ttl / 4)
		}
		if len(sets) > 0 {
			t.Errorf("a renewal is a change: %v", <-sets)
		}
		registrytest.Expect(t, sets, "that z has gone", registrytest.IDs("x"))
		if took := time.Since(last); took < ttl-ttl/4 || took > ttl+3*time.Second {
			t.Errorf("z went %v after its last renewal, for %v", took, ttl)
		} else {
			t.Logf("z went %v after its last renewal, for %v", took, ttl)
		}

		must(t, ra.Deregister(t.Context(), named("x")))
		registrytest.Expect(t, sets, "that x has gone", registrytest.IDs())

		// What operators look at.
		must(t, ra.Register(t.Context(), named("x"), 0))
		for _, addr := range []string{a, b} {
			eventually(t, "the metrics lack the node", func() bool {
				_, body := testserver.Request("GET", "http://"+addr+"/metrics", "")
				return strings.Contains(body, "\nmicro_registry_nodes 1\n") && strings.Contains(body, "\nmicro_registry_state_away 0\n")
			})
			if code, page := testserver.Request("GET", "http://"+addr+"/", "", "Accept", "text/html"); code != 200 || !strings.Contains(page, "<script>") {
				t.Errorf("the page: %d", code)
			}
			if code, _ := testserver.Request("GET", "http://"+addr+"/readyz", ""); code != 200 || stateOf(addr) != "ok" {
				t.Errorf("ready %d, %s", code, stateOf(addr))
			}
		}
	})
}

// TestStoreServerKilled: of two servers behind a balancer one is killed, while clients register, renew and watch. What was acknowledged
// stays, though the killed one held it, and no watch sees it go.
func TestStoreServerKilled(t *testing.T) {
	t.Parallel()
	onStores(t, func(t *testing.T, s store) {
		behind := testserver.Own(t, s.spec())
		url := s.name + "://" + behind.Addr + "?ttl=" + (3 * storeTTL).String()
		first, a := front(t, url)
		_, b := front(t, url)
		either := testserver.NewRelay(t, a, b).Addr
		r, watcher, atA, direct := clientOf(t, either), clientOf(t, either), clientOf(t, a), opened(t, url)
		flickers := []*flicker{watchFlickers(t, "through the balancer", watcher), watchFlickers(t, "at the server that stays", clientOf(t, b))}
		inStore := watchFlickers(t, "in the store", direct)

		// Owners that renew three times in the store's lease, whose own ttl outlasts a busy machine; some have just come to the server that is
		// killed.
		const ttl, interval = 30 * time.Second, storeTTL
		ctx, stop := context.WithCancel(t.Context())
		var owners sync.WaitGroup
		defer owners.Wait()
		defer stop()
		var mu sync.Mutex
		var acked []string
		own := func(by *http.Registry, id string) {
			owners.Go(func() {
				for taken := false; ctx.Err() == nil; {
					err := by.Register(ctx, named(id), ttl)
					if err == nil && !taken {
						mu.Lock()
						acked, taken = append(acked, id), true
						mu.Unlock()
					}
					pause := interval
					if err != nil {
						by, pause = r, 50*time.Millisecond
					}
					select {
					case <-time.After(pause):
					case <-ctx.Done():
					}
				}
			})
		}
		for i := range 60 {
			by := r
			if i%3 == 0 {
				by = atA
			}
			own(by, fmt.Sprintf("n-%02d", i))
			if i == 40 {
				first.kill()
			}
			time.Sleep(20 * time.Millisecond)
		}
		eventually(t, "not all can be registered", func() bool { mu.Lock(); defer mu.Unlock(); return len(acked) == 60 })
		registrytest.Eventually(t, "the server that stays holds all", func() bool {
			nodes, err := direct.Get(t.Context(), "greeter")
			holders := map[string]bool{}
			for _, n := range nodes {
				holders[n.Metadata["registry.copy"]] = true
			}
			return err == nil && len(nodes) == 60 && len(holders) == 1
		})
		for what, finder := range map[string]registry.Finder{"the balancer": watcher, "the store": direct} {
			if nodes, err := finder.Get(t.Context(), "greeter"); err != nil || len(nodes) != 60 {
				t.Errorf("%s has %d of 60 nodes, %v", what, len(nodes), err)
			}
		}
		for _, f := range flickers {
			if said := f.said(); said != "" {
				t.Error(said)
			}
		}
		t.Logf("%s", inStore.said())
	})
}

func opened(t *testing.T, url string) registry.Registry {
	t.Helper()
	r, err := commands.DefaultBackends().Registries.Open(t.Context(), url)
	must(t, err)
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// flicker notes which nodes a watch loses, and for how long.
type flicker struct {
	where string
	mu    sync.Mutex
	lost  map[string]time.Time
	back  map[string]time.Duration
}

func watchFlickers(t *testing.T, where string, r registry.Finder) *flicker {
	f := &flicker{where: where, lost: map[string]time.Time{}, back: map[string]time.Duration{}}
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	t.Cleanup(watching.Wait)
	t.Cleanup(cancel)
	watching.Go(func() {
		known := map[string]bool{}
		for nodes, err := range r.Watch(ctx, "greeter") {
			if err != nil {
				continue
			}
			now := map[string]bool{}
			f.mu.Lock()
			for _, n := range nodes {
				now[n.ID] = true
				if since, ok := f.lost[n.ID]; ok {
					f.back[n.ID] = max(f.back[n.ID], time.Since(since))
					delete(f.lost, n.ID)
				}
			}
			for id := range known {
				if !now[id] {
					f.lost[id] = time.Now()
				}
			}
			f.mu.Unlock()
			known = now
		}
	})
	return f
}

// said tells what was lost; empty is nothing.
func (f *flicker) said() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.lost) == 0 && len(f.back) == 0 {
		return ""
	}
	longest := time.Duration(0)
	for _, d := range f.back {
		longest = max(longest, d)
	}
	return fmt.Sprintf("a watch %s lost %d nodes, which came back after %v at most, and %d for good", f.where, len(f.back), longest, len(f.lost))
}

// TestStoreIsAway: the store is killed, and comes back. What runs is shown throughout, the servers say how it is, and take nothing.
func TestStoreIsAway(t *testing.T) {
	t.Parallel()
	onStores(t, func(t *testing.T, s store) {
		behind := testserver.Own(t, s.spec())
		url := s.name + "://" + behind.Addr + "?ttl=" + storeTTL.String()
		_, a := front(t, url)
		_, b := front(t, url)
		ra, rb := clientOf(t, a), clientOf(t, b)
		for i := range 10 {
			must(t, ra.Register(t.Context(), named(fmt.Sprintf("a-%d", i)), 0))
			must(t, rb.Register(t.Context(), named(fmt.Sprintf("b-%d", i)), 0))
		}
		all := func(r registry.Finder) func() bool {
			return func() bool { nodes, err := r.Get(t.Context(), "greeter"); return err == nil && len(nodes) == 20 }
		}
		eventually(t, "a server does not show all", all(ra))
		eventually(t, "the other does not show all", all(rb))
		flickers := []*flicker{watchFlickers(t, "at the first server", ra), watchFlickers(t, "at the second server", rb)}

		behind.Stop("KILL")
		gone := time.Now()
		for _, addr := range []string{a, b} {
			eventually(t, "a server does not say that its store is away", func() bool { return stateOf(addr) == "away" })
			t.Logf("away is said after %v", time.Since(gone))
			if code, _ := testserver.Request("GET", "http://"+addr+"/readyz", ""); code != 200 {
				t.Errorf("it knows who is registered, and is not ready: %d", code)
			}
			if _, body := testserver.Request("GET", "http://"+addr+"/metrics", ""); !strings.Contains(body, "\nmicro_registry_state_away 1\n") {
				t.Errorf("the metrics do not say so")
			}
			start := time.Now()
			if code := put(addr, "late", "1", secretA, time.Minute); code != 503 || time.Since(start) > 6*time.Second {
				t.Errorf("a new node: %d after %v", code, time.Since(start))
			}
			if code := put(addr, "a-0", "1", secretA, time.Minute); code != 503 && code != 409 {
				t.Errorf("another's node: %d", code)
			}
		}
		for time.Since(gone) < 2*storeTTL { // the leases have run out for long
			if !all(ra)() || !all(rb)() {
				t.Fatal("what was known is shown no more")
			}
			time.Sleep(100 * time.Millisecond)
		}
		third := run(t, nil, "registry", "--store", url, "--address", ":0", "-o", "name") // which never knew
		if line, err := third.stdout.ReadString('\n'); err == nil {
			addr := strings.TrimPrefix(strings.TrimSpace(line), "http://")
			if code, _ := testserver.Request("GET", "http://"+addr+"/readyz", ""); code != 503 {
				t.Errorf("a server that knows nothing is ready: %d", code)
			}
			if code, said := testserver.Request("GET", "http://"+addr+"/v1/nodes", ""); code != 503 || !strings.Contains(said, "has not reached its own registry") {
				t.Errorf("a server that knows nothing says %d %s", code, said)
			}
		} else {
			t.Errorf("a server does not start: %s", third.said)
		}

		behind.MustStart(t)
		back := time.Now()
		for _, addr := range []string{a, b} {
			eventually(t, "a server does not say that its store is back", func() bool { return stateOf(addr) == "ok" })
		}
		direct := opened(t, url)
		eventually(t, "the store does not have all again", all(direct))
		t.Logf("the store has all %v after it was back", time.Since(back))
		must(t, ra.Register(t.Context(), named("new"), 0))
		eventually(t, "the other server does not show what is new", func() bool {
			nodes, err := rb.Get(t.Context(), "greeter")
			return err == nil && len(nodes) == 21
		})
		for _, f := range flickers {
			if said := f.said(); said != "" {
				t.Error(said)
			}
		}
	})
}

// TestStoreLogin: a server whose login its store refuses ends at once, and says why without telling it; with the right one all is well.
func TestStoreLogin(t *testing.T) {
	t.Parallel()
	onStores(t, func(t *testing.T, s store) {
		behind := testserver.Own(t, s.spec(s.guard...))
		if s.prepare != nil {
			s.prepare(t, behind.Addr)
		}
		url := s.name + "://" + behind.Addr
		_, addr := front(t, url, s.right...)
		if code := put(addr, "x", "1", secretA, time.Minute); code != 201 {
			t.Errorf("a registration: %d", code)
		}
		for what, env := range map[string][]string{"a wrong login": s.wrong, "no login": nil} {
			start := time.Now()
			p := run(t, env, "registry", "--store", url, "--address", ":0", "-o", "name")
			line, _ := p.stdout.ReadString('\n')
			if line != "" {
				time.Sleep(time.Second)
				t.Errorf("%s: the server listens on %s; it says\n%s", what, line, p.said)
				p.kill()
				continue
			}
			_ = p.cmd.Wait()
			said, took := p.said.String(), time.Since(start)
			if code := p.cmd.ProcessState.ExitCode(); code == 0 || took > 8*time.Second {
				t.Errorf("%s: exit %d after %v", what, code, took)
			}
			if what == "a wrong login" && !strings.Contains(said, s.refusal) || !strings.Contains(said, behind.Addr) {
				t.Errorf("%s: it says %s", what, said)
			}
			for _, secret := range []string{storePassword, rootToken, wrongToken} {
				if strings.Contains(said, secret) {
					t.Errorf("%s: it tells the login: %s", what, said)
				}
			}
			t.Logf("%s, after %v: %s", what, took, said)
		}
	})
}
