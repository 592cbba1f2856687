package http_test

import (
	"context"
	"iter"
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
