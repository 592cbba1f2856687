package brokertest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/status"
)

func testErrors(t *testing.T, s *system) {
	good := newInbox()
	subscribe(t, s, "work", good.handle)
	subscribe(t, s, "work", func(context.Context, *broker.Message) error { return errors.New("out of paper") }, broker.Queue("print"))
	r := publish(t, s, message("work", "x"))
	if len(r.Deliveries) != 2 || r.Delivered() != 1 {
		t.Fatalf("deliveries %+v, want one well and one not", r.Deliveries)
	}
	for _, d := range r.Deliveries {
		if d.Queue == "print" && (d.Err == nil || status.CodeOf(d.Err) != status.Internal) {
			t.Errorf("the failing handler's error is %v, want one of code 500", d.Err)
		}
	}
	if r.Err() == nil {
		t.Error("Report.Err is nil")
	}
	good.wait(t, 1)
}

func testStatus(t *testing.T, s *system) {
	want := &status.Error{ID: "stock", Code: 409, Detail: "sold „out“\n"}
	subscribe(t, s, "work", func(context.Context, *broker.Message) error { return fmt.Errorf("wrapped: %w", want) })
	d := only(t, publish(t, s, message("work", "x")))
	var got *status.Error
	if !errors.As(d.Err, &got) || got.Code != want.Code || got.Detail != want.Detail || got.ID != want.ID {
		t.Errorf("error %v, want %v", d.Err, want)
	}
}

func testPanic(t *testing.T, s *system) {
	good := newInbox()
	subscribe(t, s, "work", good.handle)
	subscribe(t, s, "work", func(context.Context, *broker.Message) error { panic("boom") })
	for range 3 {
		r := publish(t, s, message("work", "x"))
		if len(r.Deliveries) != 2 || r.Delivered() != 1 {
			t.Fatalf("deliveries %+v, want one well and one not", r.Deliveries)
		}
		if code := status.CodeOf(r.Err()); code != status.Internal {
			t.Errorf("error %v of code %d, want 500", r.Err(), code)
		}
	}
	good.wait(t, 3)
}

func testTimeout(t *testing.T, s *system) {
	obedient, stubborn := newGate(), make(chan struct{})
	good := newInbox()
	subscribe(t, s, "obedient", obedient.handle, broker.Timeout(30*time.Millisecond))
	hangs := subscribe(t, s, "stubborn", func(context.Context, *broker.Message) error { <-stubborn; return nil },
		broker.Timeout(30*time.Millisecond), broker.Concurrency(1))
	subscribe(t, s, "stubborn", good.handle)
	t.Cleanup(func() { closeAll(t, hangs) }) // after the handler was let go
	t.Cleanup(func() { close(stubborn) })

	d := only(t, publish(t, s, message("obedient", "x")))
	if !errors.Is(d.Err, &status.Error{Code: status.HandlerTimeout}) {
		t.Errorf("handler that ends with its context: %v, want code 504", d.Err)
	}
	await(t, "the handler's context ends", obedient.ended)

	r := publish(t, s, message("stubborn", "x"))
	if len(r.Deliveries) != 2 || r.Delivered() != 1 || !errors.Is(r.Err(), &status.Error{Code: status.HandlerTimeout}) {
		t.Errorf("handler that hangs: %+v, want code 504 beside a good one", r.Deliveries)
	}
	if s.can.Busy { // it holds its place until it returns
		r = publish(t, s, message("stubborn", "y"))
		if !errors.Is(r.Err(), broker.ErrBusy) || r.Delivered() != 1 {
			t.Errorf("beside a handler that hangs: %v, want ErrBusy beside a good one", r.Err())
		}
	}
}

func testPublisherLeaves(t *testing.T, s *system) {
	g := newGate()
	subscribe(t, s, "work", g.handle)
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan broker.Report, 1)
	go func() {
		r, err := s.Publish(ctx, message("work", "x"))
		if err != nil {
			t.Errorf("Publish: %v", err)
		}
		result <- r
	}()
	running := await(t, "the handler runs", g.entered)
	cancel()
	r := await(t, "Publish returns", result)
	if d := only(t, r); !errors.Is(d.Err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", d.Err)
	}
	if running.Err() != nil {
		t.Error("the publisher's leaving ended the handler's context")
	}
	select {
	case g.leave <- nil:
	case <-g.ended:
		t.Error("the publisher's leaving ended the handler")
	}
}

func testSlow(t *testing.T, s *system) {
	slow, quick := newGate(), newInbox()
	subscribe(t, s, "work", slow.handle)
	subscribe(t, s, "work", quick.handle)
	done := publishing(t, s, message("work", "x"))
	await(t, "the slow handler runs", slow.entered)
	quick.wait(t, 1)
	select {
	case r := <-done:
		t.Errorf("Publish returned before a handler did: %+v", r)
	default:
	}
	slow.leave <- nil
	s.wantDelivered(t, await(t, "Publish returns", done), 2)
}

func testBusy(t *testing.T, s *system) {
	g := newGate()
	subscribe(t, s, "work", g.handle, broker.Concurrency(2))
	first, second := publishing(t, s, message("work", "1")), publishing(t, s, message("work", "2"))
	await(t, "the first handler runs", g.entered)
	await(t, "the second handler runs", g.entered)
	for range 3 {
		if d := only(t, publish(t, s, message("work", "3"))); !errors.Is(d.Err, broker.ErrBusy) {
			t.Errorf("beyond the bound: %v, want ErrBusy", d.Err)
		}
	}
	g.leave <- nil
	g.leave <- nil
	s.wantDelivered(t, await(t, "the first returns", first), 1)
	s.wantDelivered(t, await(t, "the second returns", second), 1)
	again := publishing(t, s, message("work", "4"))
	await(t, "a handler runs in the free place", g.entered)
	g.leave <- nil
	s.wantDelivered(t, await(t, "it returns", again), 1)
	if n := len(g.entered); n != 0 {
		t.Errorf("%d refused messages were handled", n)
	}
}

func testBusyMember(t *testing.T, s *system) {
	g, free := newGate(), newInbox()
	subscribe(t, s, "work", g.handle, broker.Queue("q"), broker.Concurrency(1))
	first := publishing(t, s, message("work", "1"))
	await(t, "the handler runs", g.entered)
	if d := only(t, publish(t, s, message("work", "2"))); !errors.Is(d.Err, broker.ErrBusy) || d.Queue != "q" {
		t.Errorf("all members busy: %+v, want ErrBusy of queue q", d)
	}
	subscribe(t, s, "work", free.handle, broker.Queue("q"))
	for range 20 {
		s.wantDelivered(t, publish(t, s, message("work", "3")), 1)
	}
	free.wait(t, 20)
	g.leave <- nil
	s.wantDelivered(t, await(t, "the first returns", first), 1)
}

func testRefusingMember(t *testing.T, s *system) {
	free := newInbox()
	var refused atomic.Int32
	refuse := func(context.Context, *broker.Message) error {
		refused.Add(1)
		return status.Refuse(status.Unavailable, "served its one message")
	}
	subscribe(t, s, "work", refuse, broker.Queue("q"))
	if d := only(t, publish(t, s, message("work", "1"))); !status.IsRefused(d.Err) {
		t.Errorf("error %v, want a refusal", d.Err)
	}
	subscribe(t, s, "work", free.handle, broker.Queue("q"))
	for range 40 {
		s.wantDelivered(t, publish(t, s, message("work", "2")), 1)
	}
	if free.wait(t, 40); refused.Load() < 2 {
		t.Error("the refusing member was not asked again: it would not be found recovered")
	}
}

func testFailingMember(t *testing.T, s *system) {
	var runs atomic.Int32
	fail := func(context.Context, *broker.Message) error {
		runs.Add(1)
		return errors.New("failed after the fact")
	}
	subscribe(t, s, "work", fail, broker.Queue("q"))
	subscribe(t, s, "work", fail, broker.Queue("q"))
	if d := only(t, publish(t, s, message("work", "x"))); d.Err == nil {
		t.Error("no error")
	}
	if n := runs.Load(); n != 1 {
		t.Errorf("a message that failed was handled %d times, want once", n)
	}
}

func testNotRepeated(t *testing.T, s *system) {
	seen := newInbox()
	subscribe(t, s, "work", func(ctx context.Context, m *broker.Message) error {
		_ = seen.handle(ctx, m)
		return errors.New("no")
	}, broker.Timeout(time.Second))
	for i := range 5 {
		publish(t, s, message("work", fmt.Sprint(i)))
		seen.wait(t, i+1)
	}
	for i, m := range seen.wait(t, 5) {
		if string(m.Body) != fmt.Sprint(i) {
			t.Errorf("delivery %d is message %s", i, m.Body)
		}
	}
}
