package local_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/local"
)

// BenchmarkList reads folders of 1, 100 and 500 nodes: again, and for the first time in a process.
func BenchmarkList(b *testing.B) {
	for _, endpoints := range []int{0, 5} {
		for _, count := range []int{1, 100, 500} {
			dir := b.TempDir()
			owner := open(b, local.Options{Dir: dir})
			for i := range count {
				n := node("greeter", fmt.Sprintf("greeter-%d", i))
				for e := range endpoints {
					n.Endpoints = append(n.Endpoints, endpoint(fmt.Sprintf("Say.Hello%d", e)))
				}
				if err := owner.Register(b.Context(), n, 0); err != nil {
					b.Fatal(err)
				}
			}
			list := func(b *testing.B, r *local.Registry) {
				if nodes, err := r.List(b.Context()); err != nil || len(nodes) != count {
					b.Fatalf("%d nodes, %v", len(nodes), err)
				}
			}
			b.Run(fmt.Sprintf("nodes=%d/endpoints=%d/again", count, endpoints), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					list(b, owner)
				}
			})
			b.Run(fmt.Sprintf("nodes=%d/endpoints=%d/other", count, endpoints), func(b *testing.B) { // Get of what is not there
				for b.Loop() {
					r, err := local.New(local.Options{Dir: dir})
					if err != nil {
						b.Fatal(err)
					}
					if _, err := r.Get(b.Context(), "nobody"); err == nil {
						b.Fatal("found nobody")
					}
					_ = r.Close()
				}
			})
			b.Run(fmt.Sprintf("nodes=%d/endpoints=%d/first", count, endpoints), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					r, err := local.New(local.Options{Dir: dir})
					if err != nil {
						b.Fatal(err)
					}
					list(b, r)
					_ = r.Close()
				}
			})
		}
	}
}

// endpoint is one as a typed handler has it: a request of three fields, a reply of one.
func endpoint(name string) registry.Endpoint {
	return registry.Endpoint{
		Name: name,
		Request: &registry.Value{Name: "HelloRequest", Type: "HelloRequest", Values: []*registry.Value{
			{Name: "name", Type: "string"}, {Name: "times", Type: "int32"}, {Name: "tags", Type: "[]string"}}},
		Response: &registry.Value{Name: "HelloResponse", Type: "HelloResponse", Values: []*registry.Value{{Name: "message", Type: "string"}}},
		Metadata: map[string]string{"stream": "true"},
	}
}

func BenchmarkRegister(b *testing.B) {
	r := open(b, local.Options{Dir: b.TempDir()})
	n := node("greeter", "greeter-1")
	b.Run("renewal", func(b *testing.B) {
		for b.Loop() {
			if err := r.Register(b.Context(), n, time.Minute); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("change", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			n.Version = fmt.Sprint(i)
			if err := r.Register(b.Context(), n, time.Minute); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkWatch measures how long an open watch takes to see a node of another process: from before its Register, and
// from before the kill -9 of its owner.
func BenchmarkWatch(b *testing.B) {
	for _, crowd := range []int{0, 100} {
		b.Run(fmt.Sprintf("new/nodes=%d", crowd), func(b *testing.B) { benchmarkNew(b, crowd) })
		b.Run(fmt.Sprintf("killed/nodes=%d", crowd), func(b *testing.B) { benchmarkKilled(b, crowd) })
	}
}

func benchmarkNew(b *testing.B, crowd int) {
	dir := b.TempDir()
	sets := watchSizes(b, dir, crowd)
	owner := open(b, local.Options{Dir: dir})
	var took []time.Duration
	for b.Loop() {
		n := node("greeter", "new-1")
		start := time.Now()
		if err := owner.Register(b.Context(), n, 0); err != nil {
			b.Fatal(err)
		}
		took = append(took, await(b, sets, crowd+1).Sub(start))
		if err := owner.Deregister(b.Context(), n); err != nil {
			b.Fatal(err)
		}
		await(b, sets, crowd)
	}
	report(b, took)
}

func benchmarkKilled(b *testing.B, crowd int) {
	dir := b.TempDir()
	sets := watchSizes(b, dir, crowd)
	var took []time.Duration
	for b.Loop() {
		c := spawn(b, "register "+dir+" victim 1")
		c.ready(b)
		await(b, sets, crowd+1)
		start := time.Now()
		if err := c.cmd.Process.Kill(); err != nil {
			b.Fatal(err)
		}
		took = append(took, await(b, sets, crowd).Sub(start))
		_ = c.cmd.Wait()
	}
	report(b, took)
}

type size struct {
	nodes int
	at    time.Time
}

// watchSizes watches dir, in which crowd nodes stand, and gives how many there are after each change.
func watchSizes(b *testing.B, dir string, crowd int) <-chan size {
	r := open(b, local.Options{Dir: dir})
	for i := range crowd {
		if err := r.Register(b.Context(), node("crowd", fmt.Sprintf("crowd-%d", i)), 0); err != nil {
			b.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(b.Context())
	sets, done := make(chan size, 16), make(chan struct{})
	go func() {
		defer close(done)
		for nodes, err := range r.Watch(ctx, "") {
			if err != nil {
				b.Error(err)
			}
			select {
			case sets <- size{len(nodes), time.Now()}:
			case <-ctx.Done():
			}
		}
	}()
	b.Cleanup(func() { stop(); <-done })
	await(b, sets, crowd)
	return sets
}

func await(b *testing.B, sets <-chan size, nodes int) time.Time {
	b.Helper()
	timeout := time.NewTimer(10 * time.Second)
	defer timeout.Stop()
	for {
		select {
		case s := <-sets:
			if s.nodes == nodes {
				return s.at
			}
		case <-timeout.C:
			b.Fatalf("the watch did not come to %d nodes", nodes)
		}
	}
}

func report(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	at := func(p int) float64 { return float64(took[min(len(took)*p/100, len(took)-1)].Microseconds()) / 1000 }
	b.ReportMetric(at(50), "p50-ms")
	b.ReportMetric(at(95), "p95-ms")
	b.ReportMetric(at(100), "max-ms")
	b.ReportMetric(0, "ns/op")
}
