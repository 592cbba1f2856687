// Package brokertest is the suite that every broker passes. A backend's test is one call of [Run].
package brokertest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/metadata"
)

// patience bounds each wait. It is only ever waited out by a test that fails.
const patience = 30 * time.Second

// Harness is a backend as the suite sees it.
type Harness struct {
	// New sets up a system without subscribers and gives a function that opens brokers on it. All that it opens is
	// closed by cleanups of t at the latest; the suite closes brokers too, also twice.
	New func(t *testing.T) (open func() broker.Broker)
	// Server starts a server that the test alone has, for backends that stand on one; nil for others.
	Server func(t *testing.T) Server
	// Can tells what the backend can do. The suite skips what it cannot.
	Can Capabilities
}

// Capabilities of a backend beyond carrying messages.
type Capabilities struct {
	// Report: Publish waits for the handlers, and the Report has an entry for each subscriber and each queue.
	Report bool
	// Busy: a subscription that runs as many handlers as it may refuses with ErrBusy, instead of keeping the message.
	Busy bool
	// Reroute: a queue's other members are tried where one is busy or refuses by a status error that is Refused.
	Reroute bool
	// Status: a handler's *status.Error reaches the Report with its code and detail.
	Status bool
	// Parallel: the messages of one Publish are handled at the same time where handlers are slow, as many as may run.
	Parallel bool
	// Several: brokers that were opened on one system reach each other's subscribers.
	Several bool
	// Keeps: the server has a message until each queue has acknowledged it, while the queue has no members and over its own
	// restart. What it has confirmed is not lost.
	Keeps bool
	// Unordered: messages of one Publish come in any order, also to a subscription with Concurrency(1).
	Unordered bool
	// Redelivers: what a handler does not acknowledge is delivered again, after at most a second or two.
	Redelivers bool
	// Tries is after how many deliveries a message becomes a dead letter (see broker.DeadTopic): 4 at least. 0 is never.
	Tries int
}

// Run runs the suite. It calls t.Parallel in its tests, so a test that leaks shows in the first, which runs alone: the test that calls Run
// does not call t.Parallel.
func Run(t *testing.T, h Harness) {
	t.Run("no goroutine is left", func(t *testing.T) { testLeaks(t, h) })
	tests := []struct {
		name string
		need bool
		run  func(t *testing.T, s *system)
	}{
		{"fan-out", true, testFanOut},
		{"queues", true, testQueues},
		{"whole messages", true, testWhole},
		{"messages are the handlers' own", true, testOwn},
		{"nobody listens", true, testNobody},
		{"invalid", true, testInvalid},
		{"context", true, testContext},
		{"not repeated", !h.Can.Redelivers, testNotRepeated},
		{"close subscription", true, testCloseSubscription},
		{"close broker", true, testCloseBroker},
		{"concurrent use", true, testConcurrent},
		{"report of errors", h.Can.Report, testErrors},
		{"report of a status", h.Can.Report && h.Can.Status, testStatus},
		{"report of a panic", h.Can.Report, testPanic},
		{"report of a timeout", h.Can.Report, testTimeout},
		{"publisher leaves", h.Can.Report, testPublisherLeaves},
		{"slow subscriber", h.Can.Report, testSlow},
		{"busy", h.Can.Report && h.Can.Busy, testBusy},
		{"busy member", h.Can.Report && h.Can.Reroute && h.Can.Busy, testBusyMember},
		{"refusing member", h.Can.Report && h.Can.Reroute && h.Can.Status, testRefusingMember},
		{"failing member", h.Can.Report, testFailingMember},
		{"several brokers", h.Can.Several, testSeveral},
		{"several messages", true, testMessages},
		{"several messages of several topics", true, testTopics},
		{"several messages in order", !h.Can.Unordered, testOrder},
		{"several messages to queues", true, testMessagesToQueues},
		{"several messages, one invalid", true, testOneInvalid},
		{"several messages, some fail", h.Can.Report, testSomeFail},
		{"several messages, acknowledged when handled", h.Can.Report, testAcknowledged},
		{"several messages, slow subscriber", h.Can.Report, testMessagesSlow},
		{"several messages, one hangs", h.Can.Report, testOneHangs},
		{"several messages, slow handlers", h.Can.Report && h.Can.Parallel, testSlowHandlers},
		{"several messages, refusing member", h.Can.Report && h.Can.Reroute && h.Can.Status, testSomeRefused},
		{"several messages, closed in the midst", h.Can.Report, testClosedInTheMidst},
		{"kept for a queue", h.Can.Keeps, testKeeps},
		{"delivered again", h.Can.Redelivers, testRedelivered},
		{"handed over", h.Can.Redelivers && h.Can.Several, testHandedOver},
		{"dead letters", h.Can.Tries > 0, testDead},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if !test.need {
				t.Skip("the backend cannot")
			}
			t.Parallel()
			open := h.New(t)
			test.run(t, &system{can: h.Can, open: open, Broker: open()})
		})
	}
	if h.Server != nil {
		RunServer(t, h)
	}
}

// RunServer runs the part of the suite that kills the server, and nothing else of it: for backends whose servers take their time to
// start, beside other tests. It is not for a Harness that Run was given with its Server.
func RunServer(t *testing.T, h Harness) {
	for _, test := range []struct {
		name string
		need bool
		run  func(t *testing.T, s Server)
	}{
		{"server away", true, testServerAway},
		{"server killed", true, func(t *testing.T, s Server) { testServerKilled(t, s, h.Can.Keeps) }},
		{"server killed, messages kept", h.Can.Keeps, func(t *testing.T, s Server) { testServerKeeps(t, s, !h.Can.Unordered) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			if !test.need {
				t.Skip("the backend cannot")
			}
			t.Parallel()
			test.run(t, h.Server(t))
		})
	}
}

// system is one test's: a broker, and the means to open more.
type system struct {
	broker.Broker
	can  Capabilities
	open func() broker.Broker
}

// inbox collects what a subscriber gets.
type inbox struct {
	mu       sync.Mutex
	messages []*broker.Message
	got      chan struct{} // has a token for each message
}

func newInbox() *inbox { return &inbox{got: make(chan struct{}, 100_000)} }

func (in *inbox) handle(_ context.Context, m *broker.Message) error {
	in.mu.Lock()
	in.messages = append(in.messages, m)
	in.mu.Unlock()
	in.got <- struct{}{}
	return nil
}

// wait returns all messages when there are n.
func (in *inbox) wait(t *testing.T, n int) []*broker.Message {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for in.count() < n {
		select {
		case <-in.got:
		case <-timer.C:
			t.Fatalf("%d messages came, want %d", in.count(), n)
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	return append([]*broker.Message(nil), in.messages...)
}

func (in *inbox) count() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.messages)
}

// gate is a handler that tells when it runs and returns when it is let.
type gate struct {
	entered chan context.Context
	leave   chan error
	ended   chan struct{} // gets a token when a handler saw its context end
}

func newGate() *gate {
	return &gate{entered: make(chan context.Context, 1000), leave: make(chan error), ended: make(chan struct{}, 1000)}
}

func (g *gate) handle(ctx context.Context, _ *broker.Message) error {
	g.entered <- ctx
	select {
	case err := <-g.leave:
		return err
	case <-ctx.Done():
		g.ended <- struct{}{}
		return ctx.Err()
	}
}

func await[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case v := <-c:
		return v
	case <-timer.C:
		t.Fatalf("waited in vain: %s", what)
		panic("unreachable")
	}
}

func subscribe(t *testing.T, b broker.Broker, topic string, h broker.Handler, opts ...broker.SubscribeOption) broker.Subscription {
	t.Helper()
	s, err := b.Subscribe(t.Context(), topic, h, opts...)
	if err != nil {
		t.Fatalf("Subscribe(%s): %v", topic, err)
	}
	return s
}

// message makes a valid message.
func message(topic, body string) *broker.Message {
	return &broker.Message{Topic: topic, Header: metadata.Of("content-type", "text/plain"), Body: []byte(body)}
}

func publish(t *testing.T, b broker.Broker, m *broker.Message) broker.Report {
	t.Helper()
	r, err := b.Publish(t.Context(), m)
	if err != nil {
		t.Fatalf("Publish(%s): %v", m.Topic, err)
	}
	if r.ID == "" || m.ID != "" && r.ID != m.ID || len(r.IDs) != 1 || r.IDs[0] != r.ID {
		t.Errorf("the report's id is %q of %q, the message's %q", r.ID, r.IDs, m.ID)
	}
	return r
}

// only gives the report's one delivery.
func only(t *testing.T, r broker.Report) broker.Delivery {
	t.Helper()
	if len(r.Deliveries) != 1 {
		t.Fatalf("%d deliveries, want 1: %+v", len(r.Deliveries), r.Deliveries)
	}
	return r.Deliveries[0]
}

// wantDelivered checks a report of which all deliveries are well.
func (s *system) wantDelivered(t *testing.T, r broker.Report, n int) {
	t.Helper()
	if !s.can.Report {
		return
	}
	if len(r.Deliveries) != n || r.Delivered() != n {
		t.Errorf("%d deliveries, %d of them well, want %d: %v", len(r.Deliveries), r.Delivered(), n, r.Err())
	}
	for _, d := range r.Deliveries {
		if d.Subscriber == "" {
			t.Errorf("a delivery names no subscriber: %+v", d)
		}
	}
}

// publishing publishes in the background.
func publishing(t *testing.T, b broker.Broker, m *broker.Message) <-chan broker.Report {
	t.Helper()
	reports := make(chan broker.Report, 1)
	ctx := context.WithoutCancel(t.Context()) // a report that is awaited in a cleanup
	go func() {
		r, err := b.Publish(ctx, m)
		if err != nil {
			r = broker.Report{Deliveries: []broker.Delivery{{Err: fmt.Errorf("publish failed: %w", err)}}}
		}
		reports <- r
	}()
	return reports
}

// close closes what the test is done with.
func closeAll(t *testing.T, c interface{ Close() error }) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func testLeaks(t *testing.T, h Harness) {
	before := goleak.IgnoreCurrent()
	t.Run("use", func(t *testing.T) { // its cleanups are done when it returns
		open := h.New(t)
		b := open()
		in := newInbox()
		subscribe(t, b, "leaks", in.handle)
		sub := subscribe(t, b, "leaks", in.handle, broker.Queue("q"))
		publish(t, b, message("leaks", "x"))
		in.wait(t, 2)
		closeAll(t, sub)
		closeAll(t, b)
		if _, err := b.Publish(t.Context(), message("leaks", "x")); !errors.Is(err, broker.ErrClosed) {
			t.Errorf("Publish after Close: %v, want ErrClosed", err)
		}
	})
	if err := goleak.Find(before); err != nil {
		t.Error(err)
	}
}
