package memory_test

import (
	"context"
	"errors"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/brokertest"
	"github.com/cb02dfca/micro/pkg/broker/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSuite(t *testing.T) {
	brokertest.Run(t, brokertest.Harness{
		New: func(t *testing.T) func() broker.Broker {
			first := memory.New()
			t.Cleanup(func() { _ = first.Close() })
			return func() broker.Broker {
				b := first.View()
				t.Cleanup(func() { _ = b.Close() })
				return b
			}
		},
		Can: brokertest.Capabilities{Report: true, Busy: true, Reroute: true, Status: true, Parallel: true, Several: true},
	})
}

func TestErrorsComeAsReturned(t *testing.T) {
	t.Parallel()
	b := memory.New()
	defer b.Close()
	mine := errors.New("mine")
	for _, h := range []broker.Handler{
		func(context.Context, *broker.Message) error { return mine },
		func(context.Context, *broker.Message) error { panic(mine) },
		func(context.Context, *broker.Message) error { runtime.Goexit(); return nil },
	} {
		if _, err := b.Subscribe(t.Context(), "t", h); err != nil {
			t.Fatal(err)
		}
	}
	r, err := b.Publish(t.Context(), &broker.Message{Topic: "t"})
	if err != nil || len(r.Deliveries) != 3 {
		t.Fatalf("%+v, %v", r, err)
	}
	if !errors.Is(r.Deliveries[0].Err, mine) {
		t.Errorf("error %v, want the handler's", r.Deliveries[0].Err)
	}
	if got := r.Deliveries[1].Err; got == nil || !strings.Contains(got.Error(), "panicked: mine") {
		t.Errorf("error %v, want the panic's value", got)
	}
	if r.Deliveries[2].Err == nil {
		t.Error("a handler that left its goroutine acknowledged")
	}
}

// A Publish without a deadline ends after DefaultTimeout, though a handler may run longer.
func TestDefaultTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := memory.New()
		defer b.Close()
		wait := func(ctx context.Context, _ *broker.Message) error { <-ctx.Done(); return ctx.Err() }
		if _, err := b.Subscribe(t.Context(), "t", wait, broker.Timeout(time.Hour)); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		r, err := b.Publish(context.Background(), &broker.Message{Topic: "t"})
		if err != nil || !errors.Is(r.Err(), context.DeadlineExceeded) {
			t.Errorf("%v, %v, want DeadlineExceeded", r.Err(), err)
		}
		if took := time.Since(start); took != broker.DefaultTimeout {
			t.Errorf("Publish took %v, want %v", took, broker.DefaultTimeout)
		}
	})
}

func TestOpen(t *testing.T) {
	t.Parallel()
	set := broker.Openers{"memory": memory.Open}
	b, err := set.Open(t.Context(), "memory")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, err := memory.Open(t.Context(), &url.URL{Scheme: "memory", RawQuery: "size=1"}); err == nil {
		t.Error("an unknown parameter was taken")
	}
}

// A handler that ends its goroutine fails its message, and the others of the Publish are handled.
func TestGoexitAmongSeveral(t *testing.T) {
	t.Parallel()
	b := memory.New()
	defer b.Close()
	h := func(_ context.Context, m *broker.Message) error {
		if m.ID != "" && m.ID[0] == 'x' {
			runtime.Goexit()
		}
		return nil
	}
	if _, err := b.Subscribe(t.Context(), "t", h, broker.Concurrency(1)); err != nil {
		t.Fatal(err)
	}
	for _, at := range [][]int{{0}, {3, 4}, {9}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}} {
		ms := make([]*broker.Message, 10)
		for i := range ms {
			ms[i] = &broker.Message{Topic: "t"}
		}
		for _, i := range at {
			ms[i].ID = "x" + strings.Repeat("x", i)
		}
		r, err := b.Publish(t.Context(), ms...)
		if err != nil || r.Delivered() != 10-len(at) {
			t.Fatalf("%v: %d delivered, want %d: %v", err, r.Delivered(), 10-len(at), r.Err())
		}
		for _, i := range at {
			if r.Of(i).Err() == nil {
				t.Errorf("message %d was acknowledged", i)
			}
		}
	}
}
