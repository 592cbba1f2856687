package client_test

import (
	"context"
	"errors"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
	brokermemory "github.com/cb02dfca/micro/pkg/broker/memory"
	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/metadata"
	registrymemory "github.com/cb02dfca/micro/pkg/registry/memory"
	"github.com/cb02dfca/micro/pkg/transport/memory"
)

// event is what a subscriber got.
type event struct{ contentType, token, body string }

// publisher gives a client over a memory broker, and what the subscriber of "topic" got, in the order in which it came.
func publisher(t *testing.T) (c *client.Client, got func() []event) {
	t.Helper()
	b := brokermemory.New()
	t.Cleanup(func() { _ = b.Close() })
	var mu sync.Mutex
	var all []event
	_, err := b.Subscribe(t.Context(), "topic", func(_ context.Context, m *broker.Message) error {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, event{m.Header.Get("content-type"), m.Header.Get("token"), string(m.Body)})
		if string(m.Body) == "false" {
			return errors.New("no")
		}
		return nil
	}, broker.Concurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	if c, err = client.New(client.WithTransport(memory.New()), client.WithRegistry(registrymemory.New()), client.WithBroker(b)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, func() []event {
		mu.Lock()
		defer mu.Unlock()
		return all
	}
}

// TestPublishAll: the values come in their order, each by its own codec, with the metadata of all, and the Report tells of each.
func TestPublishAll(t *testing.T) {
	t.Parallel()
	c, got := publisher(t)
	ctx := metadata.WithOutgoing(t.Context(), metadata.Of("token", "t1"))
	report, err := c.PublishAll(ctx, "topic", []any{true, []byte("raw"), false, nil, 3}, client.Timeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	const json, raw = "application/json", "application/octet-stream"
	want := []event{{json, "t1", "true"}, {raw, "t1", "raw"}, {json, "t1", "false"}, {json, "t1", ""}, {json, "t1", "3"}}
	if !reflect.DeepEqual(got(), want) {
		t.Errorf("got %q, want %q", got(), want)
	}
	if report.Delivered() != 4 || len(report.IDs) != 5 || report.Of(2).Err() == nil || report.Of(3).Err() != nil {
		t.Errorf("report %+v", report)
	}
}

func TestPublishAllOrNone(t *testing.T) {
	t.Parallel()
	c, got := publisher(t)
	for name, test := range map[string]struct {
		values []any
		opts   []client.CallOption
		want   error
	}{
		"no values":             {nil, nil, broker.ErrInvalid},
		"one that has no form":  {[]any{"a", func() {}}, nil, codec.ErrUnsupported},
		"one that is no JSON":   {[]any{"a", make(chan int)}, []client.CallOption{client.ContentType("application/json")}, codec.ErrUnsupported},
		"an unknown codec":      {[]any{"a"}, []client.CallOption{client.ContentType("text/x")}, codec.ErrUnsupported},
		"an option's own error": {[]any{"a"}, []client.CallOption{client.Header("", "x")}, metadata.ErrInvalid},
	} {
		if _, err := c.PublishAll(t.Context(), "topic", test.values, test.opts...); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
	if len(got()) > 0 {
		t.Errorf("got %q", got())
	}
	if _, err := newSystem(t).client().PublishAll(t.Context(), "topic", []any{"a"}); err == nil {
		t.Error("published without a broker")
	}
}
