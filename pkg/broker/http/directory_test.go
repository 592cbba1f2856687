package http_test

import (
	"context"
	"iter"
	"slices"
	"testing"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/http"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/memory"
)

// hasty is a registry whose watch begins with what its fastest part knows: nothing.
type hasty struct{ registry.Registry }

func (h hasty) Watch(ctx context.Context, _ string) iter.Seq2[[]registry.Node, error] {
	return func(yield func([]registry.Node, error) bool) {
		if yield([]registry.Node{}, nil) {
			<-ctx.Done()
		}
	}
}

// TestFirstPublishReachesAll: a process that publishes once, and ends, must not take the watch's first set for the whole.
func TestFirstPublishReachesAll(t *testing.T) {
	t.Parallel()
	reg := memory.New()
	defer func() { _ = reg.Close() }()
	got := make(chan string, 2)
	for range 2 {
		b, err := http.New(reg, http.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = b.Close() }()
		_, err = b.Subscribe(t.Context(), "topic", func(_ context.Context, m *broker.Message) error {
			got <- string(m.Body)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	b, err := http.New(hasty{reg}, http.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	report, err := b.Publish(t.Context(), &broker.Message{Topic: "topic", Body: []byte("x")})
	if err != nil || report.Delivered() != 2 || len(got) != 2 {
		t.Errorf("report %+v, %v, %d received", report, err, len(got))
	}
}

// telling is a registry whose watch tells what a test gives it. It has nobody of go-micro v1.
type telling struct {
	registry.Registry

	changes chan registry.Change
}

func (r telling) WatchChanges(ctx context.Context, service string) iter.Seq2[registry.Change, error] {
	return func(yield func(registry.Change, error) bool) {
		if service == registry.BrokerServiceV1 {
			yield(registry.Change{Reset: true}, nil)
			<-ctx.Done()
			return
		}
		for {
			select {
			case c := <-r.changes:
				if !yield(c, nil) {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}
}

// TestDirectoryFollowsChanges: a publication goes to those that are subscribed after all that the watch has told.
func TestDirectoryFollowsChanges(t *testing.T) {
	t.Parallel()
	reg := memory.New()
	defer func() { _ = reg.Close() }()
	r := telling{reg, make(chan registry.Change)}
	b, err := http.New(r, http.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	on := func(topic string, ids ...string) (nodes []registry.Node) {
		for _, id := range ids {
			nodes = append(nodes, registry.Node{
				ID: id, Service: registry.BrokerService, Address: "127.0.0.1:1", Version: "ff.http.broadcast",
				Metadata: map[string]string{registry.MetaBroker: "http", registry.MetaTopic: topic},
			})
		}
		return nodes
	}
	subscribers := func(topic string) (ids []string) {
		report, err := b.Publish(t.Context(), &broker.Message{Topic: topic})
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range report.Deliveries {
			ids = append(ids, d.Subscriber)
		}
		return ids
	}
	first := make(chan []string, 1)
	go func() { first <- subscribers("t") }() // it starts the watch
	r.changes <- registry.Change{Reset: true, Put: on("t", "b", "a")}
	if got := <-first; !slices.Equal(got, []string{"a", "b"}) {
		t.Fatalf("sent to %v", got)
	}
	for _, step := range []struct {
		change registry.Change
		t, u   []string
	}{
		{registry.Change{Put: on("t", "c")}, []string{"a", "b", "c"}, nil},
		{registry.Change{Gone: []string{"a", "x"}}, []string{"b", "c"}, nil},
		{registry.Change{Put: on("u", "b")}, []string{"c"}, []string{"b"}},
		{registry.Change{Put: on("u", "c")}, nil, []string{"b", "c"}},
		{registry.Change{Gone: []string{"b"}, Put: on("t", "e")}, []string{"e"}, []string{"c"}},
		{registry.Change{Reset: true, Put: on("t", "d")}, []string{"d"}, nil},
		{registry.Change{Reset: true}, nil, nil},
	} {
		r.changes <- step.change
		r.changes <- registry.Change{} // taken when the one before it has been learnt
		if t1, u1 := subscribers("t"), subscribers("u"); !slices.Equal(t1, step.t) || !slices.Equal(u1, step.u) {
			t.Errorf("after %+v: sent to %v and %v, want %v and %v", step.change, t1, u1, step.t, step.u)
		}
	}
}
