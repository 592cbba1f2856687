package brokertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/metadata"
)

// Server is a backend's server that one test has for itself.
type Server struct {
	// Open opens a broker on it, as the function that Harness.New gives.
	Open func() broker.Broker
	// Kill ends the server without a warning. Start starts it anew, at the same address, with what it had written, and returns
	// when it answers.
	Kill, Start func()
}

// While the server is away what is published fails, and says so, and does not come later; when it is back, subscriptions go on by
// themselves.
func testServerAway(t *testing.T, s Server) {
	b := s.Open()
	alone, queued := newInbox(), newInbox()
	subscribe(t, b, "away", alone.handle)
	subscribe(t, b, "away", queued.handle, broker.Queue("q"))
	publish(t, b, message("away", "before"))
	alone.wait(t, 1)
	queued.wait(t, 1)
	s.Kill()
	for n := range 20 { // the first may still be sent on the connection that is breaking
		_, err := b.Publish(t.Context(), message("away", fmt.Sprint("meanwhile ", n)))
		if err == nil {
			t.Fatalf("Publish %d without a server is well", n)
		}
		if !errors.Is(err, broker.ErrUnavailable) || !strings.HasPrefix(err.Error(), "broker: ") {
			t.Errorf("Publish without a server: %v, want ErrUnavailable", err)
		}
	}
	if _, err := s.Open().Publish(t.Context(), message("away", "another broker's")); !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("Publish of a broker that was opened without a server: %v, want ErrUnavailable", err)
	}
	s.Start()
	until(t, "a message reaches both subscriptions again", func() bool {
		_, err := b.Publish(t.Context(), message("away", "after"))
		if err != nil && !errors.Is(err, broker.ErrUnavailable) {
			t.Errorf("Publish after the server has come back: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
		return alone.having("after") > 0 && queued.having("after") > 0 // one may come back before the other
	})
	for _, m := range append(alone.wait(t, 0), queued.wait(t, 0)...) {
		if strings.HasPrefix(string(m.Body), "meanwhile") {
			t.Errorf("%q came, whose Publish had failed", m.Body)
		}
	}
	publish(t, b, message("away", "in the end"))
	until(t, "the last message", func() bool { return alone.having("in the end") > 0 && queued.having("in the end") > 0 })
}

// until waits for ok.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// having counts the messages with a body.
func (in *inbox) having(body string) (n int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, m := range in.messages {
		if string(m.Body) == body {
			n++
		}
	}
	return n
}

// Publishers go on while the server is killed again and again: each Publish ends, well or with an error that says that the server
// is away; and what was confirmed comes, where the backend keeps messages.
func testServerKilled(t *testing.T, s Server, keeps bool) {
	const publishers, kills = 4, 3
	b := s.Open()
	var mu sync.Mutex
	got := map[string]int{}
	subscribe(t, s.Open(), "killed", func(_ context.Context, m *broker.Message) error {
		mu.Lock()
		defer mu.Unlock()
		got[string(m.Body)]++
		return nil
	}, broker.Queue("q"))
	var wg sync.WaitGroup
	var stop atomic.Bool
	confirmed := make([][]string, publishers)
	var well atomic.Int64
	defer wg.Wait() // also of a test that has failed
	defer stop.Store(true)
	for p := range publishers {
		wg.Go(func() {
			for n := 0; !stop.Load(); n++ {
				ms := numbered("killed", 1+n%3)
				for i, m := range ms {
					m.Body = fmt.Appendf(nil, "%d.%d.%d", p, n, i)
				}
				start := time.Now()
				_, err := b.Publish(t.Context(), ms...)
				if took := time.Since(start); took > patience {
					t.Errorf("a Publish took %v", took)
				}
				switch {
				case err == nil:
					well.Add(1)
					for _, m := range ms {
						confirmed[p] = append(confirmed[p], string(m.Body))
					}
				case !errors.Is(err, broker.ErrUnavailable):
					t.Errorf("Publish beside a server that is killed: %v, want ErrUnavailable", err)
				default:
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	enough := func() func() bool {
		was := well.Load()
		return func() bool { return well.Load() > was+50 }
	}
	for range kills {
		until(t, "messages are published", enough())
		s.Kill()
		time.Sleep(20 * time.Millisecond) // publishers meet a server that is away
		s.Start()
	}
	until(t, "messages are published", enough())
	stop.Store(true)
	wg.Wait()
	all := slices.Concat(confirmed...)
	if !keeps {
		return
	}
	lost := func() (lost []string) {
		mu.Lock()
		defer mu.Unlock()
		for _, id := range all {
			if got[id] == 0 {
				lost = append(lost, id)
			}
		}
		return lost
	}
	for end := time.Now().Add(patience); len(lost()) > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d of %d messages were confirmed and did not come, one of them %s", len(lost()), len(all), lost()[0])
		}
	}
}

// What a queue has not acknowledged outlives the server and its members.
func testServerKeeps(t *testing.T, s Server, ordered bool) {
	const n = 50
	b := s.Open()
	closeAll(t, subscribe(t, b, "kept", newInbox().handle, broker.Queue("q")))
	publishAll(t, b, numbered("kept", n))
	s.Kill()
	s.Start()
	in := newInbox()
	var sub broker.Subscription
	until(t, "a subscription on the server that came back", func() (ok bool) {
		var err error
		sub, err = b.Subscribe(t.Context(), "kept", in.handle, broker.Queue("q"), broker.Concurrency(1))
		if err != nil && !errors.Is(err, broker.ErrUnavailable) {
			t.Fatalf("Subscribe: %v", err)
		}
		return err == nil
	})
	for i, m := range in.wait(t, n)[:n] {
		if ordered && string(m.Body) != strconv.Itoa(i) {
			t.Fatalf("message %s came in place %d", m.Body, i)
		}
		if in.having(strconv.Itoa(i)) == 0 {
			t.Errorf("message %d did not come", i)
		}
	}
	closeAll(t, sub)
}

// A queue has its messages while it has no members.
func testKeeps(t *testing.T, s *system) {
	const n = 30
	closeAll(t, subscribe(t, s, "kept", newInbox().handle, broker.Queue("q")))
	publishAll(t, s, numbered("kept", n))
	in := newInbox()
	sub := subscribe(t, s, "kept", in.handle, broker.Queue("q"))
	in.wait(t, n)
	closeAll(t, sub)
	again := newInbox()
	subscribe(t, s, "kept", again.handle, broker.Queue("q"))
	publish(t, s, message("kept", "last"))
	if got := again.wait(t, 1); string(got[0].Body) != "last" || in.count() != n {
		t.Errorf("got %q, and %d messages before, want %d: what was acknowledged came again", got[0].Body, in.count(), n)
	}
}

// A message whose handler fails, panics or outlasts its time comes again, as it was, until one acknowledges it.
func testRedelivered(t *testing.T, s *system) {
	for _, opts := range [][]broker.SubscribeOption{{broker.Queue("q")}, nil} {
		in := newInbox()
		opts = append(opts, broker.Timeout(100*time.Millisecond), broker.Concurrency(4))
		hang := make(chan struct{})
		sub := subscribe(t, s, "again", func(ctx context.Context, m *broker.Message) error {
			_ = in.handle(ctx, m)
			tries := in.having(string(m.Body))
			switch {
			case tries > 2:
				return nil
			case string(m.Body) == "fails":
				return errors.New("no")
			case string(m.Body) == "panics":
				panic("no")
			case string(m.Body) == "waits":
				<-ctx.Done()
				return ctx.Err()
			case string(m.Body) == "hangs" && tries == 1:
				<-hang // its place is lost until it returns
			}
			return nil
		}, opts...)
		ids := map[string]string{}
		for _, body := range []string{"fails", "panics", "waits", "hangs", "well"} {
			ids[body] = publish(t, s, message("again", body)).ID
		}
		want := map[string]int{"fails": 3, "panics": 3, "waits": 3, "hangs": 2, "well": 1}
		until(t, "each message as often as it has to come", func() bool {
			for body, n := range want {
				if in.having(body) < n {
					return false
				}
			}
			return true
		})
		publish(t, s, message("again", "well"))
		until(t, "a later message", func() bool { return in.having("well") == 2 })
		for _, m := range in.wait(t, 0) {
			if id := ids[string(m.Body)]; m.ID != id && string(m.Body) != "well" || m.Topic != "again" {
				t.Errorf("message %q of topic %q came with id %q, want %q", m.Body, m.Topic, m.ID, id)
			}
			wantHeader(t, string(m.Body), m.Header, metadata.Of("content-type", "text/plain"))
		}
		for body, n := range want {
			if body != "well" && in.having(body) != n {
				t.Errorf("%q came %d times, want %d", body, in.having(body), n)
			}
		}
		close(hang)
		closeAll(t, sub)
	}
}

// A message that no handler takes becomes a dead letter after the number of tries, once, and those behind it are handled.
func testDead(t *testing.T, s *system) {
	dead := newInbox()
	subscribe(t, s, broker.DeadTopic("poison"), dead.handle)
	in := newInbox()
	subscribe(t, s, "poison", func(ctx context.Context, m *broker.Message) error {
		_ = in.handle(ctx, m)
		if string(m.Body) == "bad" {
			return errors.New("cannot\nbe read")
		}
		return nil
	}, broker.Queue("q"))
	bad := message("poison", "bad")
	bad.Header = metadata.Of("content-type", "text/plain", "number", "7")
	id := publish(t, s, bad).ID
	for i := range 10 {
		publish(t, s, message("poison", strconv.Itoa(i)))
	}
	m := dead.wait(t, 1)[0]
	in.wait(t, 10+s.can.Tries)
	if string(m.Body) != "bad" || m.ID != id || m.Topic != broker.DeadTopic("poison") {
		t.Errorf("the dead letter is %q with id %q of topic %q, want id %q", m.Body, m.ID, m.Topic, id)
	}
	for key, want := range map[string]string{
		"content-type": "text/plain", "number": "7", broker.DeadTopicKey: "poison", broker.DeadQueueKey: "q",
		broker.DeadTriesKey: strconv.Itoa(s.can.Tries), broker.DeadReasonKey: "cannot be read",
	} {
		if got := m.Header.Get(key); got != want {
			t.Errorf("the dead letter's header %s is %q, want %q", key, got, want)
		}
	}
	publish(t, s, message("poison", "last"))
	in.wait(t, 11+s.can.Tries)
	if got := in.having("bad"); got != s.can.Tries || dead.count() != 1 {
		t.Errorf("the message came %d times, want %d, and %d dead letters", got, s.can.Tries, dead.count())
	}
}

// A message that a member has in hand when it is closed goes to another.
func testHandedOver(t *testing.T, s *system) {
	leaving := s.open()
	g := newGate()
	subscribe(t, leaving, "handed", g.handle, broker.Queue("q"))
	publish(t, s, message("handed", "x"))
	await(t, "the handler runs", g.entered)
	in := newInbox()
	subscribe(t, s, "handed", in.handle, broker.Queue("q"))
	closeAll(t, leaving)
	if got := in.wait(t, 1); string(got[0].Body) != "x" {
		t.Errorf("got %q", got[0].Body)
	}
}
