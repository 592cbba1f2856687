package brokertest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
)

func testContext(t *testing.T, s *system) {
	in := newInbox()
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Subscribe(over, "topic", in.handle); !errors.Is(err, context.Canceled) {
		t.Errorf("Subscribe with a context that is over: %v", err)
	}
	subscribed, cancel := context.WithCancel(t.Context())
	if _, err := s.Subscribe(subscribed, "topic", in.handle); err != nil {
		t.Fatal(err)
	}
	cancel() // it bounds the subscribing alone
	if _, err := s.Publish(over, message("topic", "x")); !errors.Is(err, context.Canceled) {
		t.Errorf("Publish with a context that is over: %v", err)
	}
	s.wantDelivered(t, publish(t, s, message("topic", "y")), 1)
	if got := in.wait(t, 1); len(got) != 1 || string(got[0].Body) != "y" {
		t.Errorf("got %d messages, the first %q, want y alone", len(got), got[0].Body)
	}
	if !s.can.Report {
		return
	}
	g := newGate()
	subscribe(t, s, "slow", g.handle)
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	r, err := s.Publish(short, message("slow", "x"))
	if err != nil {
		t.Fatalf("Publish: %v", err)
	}
	if d := only(t, r); !errors.Is(d.Err, context.DeadlineExceeded) {
		t.Errorf("error %v, want context.DeadlineExceeded", d.Err)
	}
}

func testCloseSubscription(t *testing.T, s *system) {
	other, returned := newInbox(), make(chan struct{})
	entered, ended := make(chan struct{}), make(chan struct{})
	sub := subscribe(t, s, "topic", func(ctx context.Context, _ *broker.Message) error {
		close(entered)
		<-ctx.Done()
		close(ended)
		<-returned
		return ctx.Err()
	})
	subscribe(t, s, "topic", other.handle)
	first := publishing(t, s, message("topic", "1"))
	await(t, "the handler runs", entered)
	closed := make(chan error, 1)
	go func() { closed <- sub.Close() }()
	await(t, "the handler's context ends", ended)
	select {
	case <-closed:
		t.Error("Close returned before the handler")
	case <-time.After(20 * time.Millisecond): // enough to catch a Close that does not wait
	}
	close(returned)
	if err := await(t, "Close returns", closed); err != nil {
		t.Errorf("Close: %v", err)
	}
	if r := await(t, "Publish returns", first); s.can.Report && (len(r.Deliveries) != 2 || r.Delivered() != 1) {
		t.Errorf("the message under way: %+v, want one delivery well and one not", r.Deliveries)
	}
	closeAll(t, sub) // twice is no error
	other.wait(t, 1)
	s.wantDelivered(t, publish(t, s, message("topic", "2")), 1)
	other.wait(t, 2)
}

func testCloseBroker(t *testing.T, s *system) {
	g := newGate()
	sub := subscribe(t, s, "topic", g.handle)
	first := publishing(t, s, message("topic", "1"))
	await(t, "the handler runs", g.entered)
	closeAll(t, s)
	await(t, "the handler's context ends", g.ended)
	r := await(t, "Publish returns", first)
	if s.can.Report && r.Err() == nil {
		t.Error("the message under way was cut short, and its report has no error")
	}
	if _, err := s.Publish(t.Context(), message("topic", "2")); !errors.Is(err, broker.ErrClosed) {
		t.Errorf("Publish after Close: %v, want ErrClosed", err)
	}
	if _, err := s.Subscribe(t.Context(), "topic", g.handle); !errors.Is(err, broker.ErrClosed) {
		t.Errorf("Subscribe after Close: %v, want ErrClosed", err)
	}
	closeAll(t, sub)
	closeAll(t, s) // twice is no error
	if len(g.entered) != 0 {
		t.Error("a handler ran after Close")
	}
}
