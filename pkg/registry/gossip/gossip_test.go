package gossip_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/gossip"
	"github.com/cb02dfca/micro/pkg/registry/registrytest"
)

func TestMain(m *testing.M) {
	if raw := os.Getenv(roleVar); raw != "" {
		if err := play(raw); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(settling{m})
}

// settling lets memberlist's probes that are under way end, which a closed member does not wait for.
type settling struct{ *testing.M }

func (m settling) Run() int {
	code := m.M.Run()
	for deadline := time.Now().Add(30 * time.Second); goleak.Find() != nil && time.Now().Before(deadline); {
	}
	return code
}

// wait is how long anything may take on a busy machine. memberlist finds a dead member after 6 s on an idle one.
const wait = 90 * time.Second

func node(id string) registry.Node {
	return registry.Node{ID: id, Service: "greeter", Version: "1.0.0", Address: "127.0.0.1:4711", Metadata: map[string]string{"protocol": "mucp"}}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// open gives a member, which is closed at the end of the test.
func open(t testing.TB, o gossip.Options) *gossip.Registry {
	t.Helper()
	r, err := gossip.New(o)
	must(t, err)
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// at is options of a member whose door is at an address.
func at(seed string) gossip.Options { return gossip.Options{Seeds: []string{seed}} }

func TestConformance(t *testing.T) {
	t.Parallel()
	registrytest.Run(t, registrytest.Harness{
		New: func(*testing.T) registrytest.Open {
			seed := testserver.FreeAddr()
			return func(t *testing.T) registry.Registry { return open(t, at(seed)) }
		},
		Kill:   func(_ *testing.T, r registry.Registry) { r.(*gossip.Registry).Kill() },
		Shared: true, Endpoints: true, Conflicts: true, SeesDeath: true, Wait: wait,
	})
}

// set is what a watch shows, or its error.
type set struct {
	nodes []registry.Node
	err   error
}

// watching reads a watch until the end of the test.
func watching(t *testing.T, r registry.Registry, service string) <-chan set {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	sets, done := make(chan set, 10000), make(chan struct{})
	go func() {
		defer close(done)
		for nodes, err := range r.Watch(ctx, service) {
			sets <- set{nodes, err}
		}
	}()
	t.Cleanup(func() { stop(); <-done })
	return sets
}

// expect reads sets until one is as ok wants it.
func expect(t *testing.T, sets <-chan set, what string, ok func(set) bool) set {
	t.Helper()
	var last set
	timeout := time.After(wait)
	for {
		select {
		case last = <-sets:
			if ok(last) {
				return last
			}
		case <-timeout:
			t.Fatalf("the watch did not show %s; its last were %d nodes %+v and %v", what, len(last.nodes), last.nodes, last.err)
		}
	}
}

// ids wants exactly these.
func ids(want ...string) func(set) bool {
	return func(s set) bool { return s.err == nil && strings.Join(names(s.nodes), " ") == strings.Join(want, " ") }
}

func names(nodes []registry.Node) (ids []string) {
	for _, n := range nodes {
		ids = append(ids, n.ID)
	}
	return ids
}

// lists polls until a registry lists exactly these.
func lists(t testing.TB, r registry.Registry, want ...string) {
	t.Helper()
	var got []string
	eventually(t, fmt.Sprintf("it lists %v", want), func() bool {
		nodes, err := r.List(t.Context())
		got = names(nodes)
		return err == nil && strings.Join(got, " ") == strings.Join(want, " ")
	})
}

// eventually polls until ok holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(wait); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never came that %s", what)
		}
	}
}

// cluster gives members with a door in common.
func cluster(t *testing.T, size int) []*gossip.Registry {
	t.Helper()
	seed := testserver.FreeAddr()
	members := make([]*gossip.Registry, size)
	for i := range members {
		members[i] = open(t, at(seed))
	}
	return members
}

// journal keeps what a logger is told.
type journal struct {
	mu  sync.Mutex
	out strings.Builder
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

func (j *journal) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
