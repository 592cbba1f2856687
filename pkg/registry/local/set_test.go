package local_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/local"
)

const patience = 20 * time.Second

// watcher follows a watch of all services.
type watcher struct {
	t    testing.TB
	news chan struct{}

	mu   sync.Mutex
	ids  []string
	sets int
	errs []error
}

// watch starts a watch that ends with the test.
func watch(t testing.TB, r registry.Registry) *watcher {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	w, done := &watcher{t: t, news: make(chan struct{}, 1)}, make(chan struct{})
	go func() {
		defer close(done)
		for nodes, err := range r.Watch(ctx, "") {
			w.mu.Lock()
			if err != nil {
				w.errs = append(w.errs, err)
			} else {
				w.ids, w.sets = idsOf(nodes), w.sets+1
			}
			w.mu.Unlock()
			select {
			case w.news <- struct{}{}:
			default:
			}
		}
	}()
	t.Cleanup(func() { stop(); <-done })
	return w
}

// expect waits until the watch's set has these ids.
func (w *watcher) expect(ids ...string) {
	w.t.Helper()
	slices.Sort(ids)
	w.until(fmt.Sprint(ids), func() bool { return w.sets > 0 && slices.Equal(w.ids, ids) })
}

// until waits until ok, which is called with the watcher's lock held.
func (w *watcher) until(what string, ok func() bool) {
	w.t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		w.mu.Lock()
		found, ids, errs := ok(), w.ids, w.errs
		w.mu.Unlock()
		if found {
			return
		}
		select {
		case <-w.news:
		case <-timeout.C:
			w.t.Fatalf("the watch is at %v (errors %v), want %s", ids, errs, what)
		}
	}
}

func idsOf(nodes []registry.Node) []string {
	out := make([]string, 0, len(nodes))
	for _, n := range nodes {
		out = append(out, n.ID)
	}
	slices.Sort(out)
	return out
}

func register(t testing.TB, r registry.Registry, n registry.Node) {
	t.Helper()
	if err := r.Register(t.Context(), n, 0); err != nil {
		t.Fatal(err)
	}
}

// expectList fails the test unless List gives these ids.
func expectList(t testing.TB, r registry.Registry, ids ...string) {
	t.Helper()
	nodes, err := r.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(ids)
	if got := idsOf(nodes); !slices.Equal(got, ids) {
		t.Fatalf("List gave %v, want %v", got, ids)
	}
}

// eventually polls until ok, and fails the test if that never comes.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never came to this: %s", what)
		}
	}
}

// logbook is a log to look into.
type logbook struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logbook) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// lines counts the lines that contain text.
func (l *logbook) lines(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	count := 0
	for line := range strings.Lines(l.buf.String()) {
		if strings.Contains(line, text) {
			count++
		}
	}
	return count
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

var _ registry.Opener = local.Open
