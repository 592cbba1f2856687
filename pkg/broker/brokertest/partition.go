package brokertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cb02dfca/micro/internal/netspace"
	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/broker"
)

// Partitions says how a backend is cut off from its server, whose packets are lost without a word. Times are on a busy machine.
type Partitions struct {
	// Server says how the server is run. A test that cannot run it is skipped here.
	Server func(t *testing.T) testserver.Spec
	// Open opens a broker on that server, by host:port.
	Open func(t *testing.T, address string) broker.Broker
	// Keeps: what was acknowledged comes to the queue's members, whoever of them was cut off.
	Keeps bool
	// Back is how long after the partition's end it may take until messages come, and are taken. Default 8 s.
	Back time.Duration
	// Redelivery is how much longer it may take for what a member had in hand when it was cut off. Default none.
	Redelivery time.Duration
}

const (
	// cutTime is how long a partition lasts: so long that TCP, which doubles its pauses, would say nothing for many seconds after its
	// end.
	cutTime = 16 * time.Second
	// publishTime is what each Publish is given.
	publishTime = 2 * time.Second
)

// RunPartitions runs, as subtests of t, what happens to publishers and subscribers that are cut off from their server. It calls
// t.Parallel. Where no network can be made the test is skipped.
func RunPartitions(t *testing.T, p Partitions) {
	t.Helper()
	if p.Back == 0 {
		p.Back = 8 * time.Second
	}
	t.Parallel()
	if !netspace.Alone(t) {
		return
	}
	s := &partition{Partitions: p, server: testserver.NewBeyond(t, p.Server(t))}
	for _, f := range []netspace.Flow{netspace.To, netspace.From, netspace.Both} {
		for who, run := range map[string]func(*testing.T, netspace.Flow, string){"a publisher": s.publisher, "a subscriber": s.subscriber} {
			t.Run(who+", packets lost: "+f.String(), func(t *testing.T) {
				t.Parallel()
				run(t, f, fmt.Sprintf("%c%d", who[2], f))
			})
		}
	}
}

// partition is a server, and what is asked of its backend.
type partition struct {
	Partitions
	server *testserver.Beyond
}

// series publishes a message each 20 ms until it is stopped.
type series struct {
	stop func() // and waits

	mu        sync.Mutex
	confirmed []string
	last      time.Time // when a Publish went well
	longest   time.Duration
}

func publishSeries(t *testing.T, b broker.Broker, topic string) *series {
	s := &series{}
	ctx, stop := context.WithCancel(t.Context())
	var busy sync.WaitGroup
	s.stop = sync.OnceFunc(func() { stop(); busy.Wait() })
	t.Cleanup(s.stop)
	busy.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			body := fmt.Sprint(i)
			begun := time.Now()
			bounded, cancel := context.WithTimeout(t.Context(), publishTime)
			_, err := b.Publish(bounded, message(topic, body))
			cancel()
			s.mu.Lock()
			s.longest = max(s.longest, time.Since(begun))
			if err == nil {
				s.confirmed, s.last = append(s.confirmed, body), time.Now()
			} else if !errors.Is(err, broker.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Publish of one that is cut off gave %v", err)
			}
			s.mu.Unlock()
			time.Sleep(20 * time.Millisecond)
		}
	})
	return s
}

func (s *series) since(at time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last.After(at)
}

// within waits for ok, and logs how long it took.
func within(t *testing.T, d time.Duration, what string, ok func() bool) {
	t.Helper()
	begun := time.Now()
	for !ok() {
		if time.Since(begun) > d {
			t.Errorf("%s: not within %v", what, d)
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Logf("%s: after %v", what, time.Since(begun).Round(10*time.Millisecond))
}

// all wants each confirmed message to come.
func (p *partition) all(t *testing.T, s *series, in *inbox) {
	t.Helper()
	s.stop()
	t.Logf("%d messages were confirmed, the longest Publish took %v", len(s.confirmed), s.longest.Round(10*time.Millisecond))
	if s.longest > publishTime+time.Second {
		t.Errorf("a Publish of %v took %v", publishTime, s.longest)
	}
	if !p.Keeps {
		return
	}
	var lost []string
	within(t, p.Back+p.Redelivery, "what was confirmed has come", func() bool {
		came := in.bodies()
		lost = slices.DeleteFunc(slices.Clone(s.confirmed), func(body string) bool { return came[body] })
		return len(lost) == 0
	})
	if len(lost) > 0 {
		t.Errorf("%d of %d messages were confirmed and did not come, one of them %s", len(lost), len(s.confirmed), lost[0])
	}
}

func (in *inbox) bodies() map[string]bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	all := map[string]bool{}
	for _, m := range in.messages {
		all[string(m.Body)] = true
	}
	return all
}

// publisher: what one that is cut off publishes fails, in time, and goes well soon after.
func (p *partition) publisher(t *testing.T, f netspace.Flow, topic string) {
	addr, way := p.server.Way()
	in := newInbox()
	subscribe(t, p.Open(t, p.server.Addr), topic, in.handle, broker.Queue("q"))
	s := publishSeries(t, p.Open(t, addr), topic)
	until(t, "messages come", func() bool { return in.count() > 10 })
	way.Cut(f)
	time.Sleep(cutTime)
	way.Heal()
	healed := time.Now()
	within(t, p.Back, "Publish goes well", func() bool { return s.since(healed.Add(time.Millisecond)) })
	p.all(t, s, in)
}

// subscriber: one that is cut off gets what comes after, and what its queue has kept.
func (p *partition) subscriber(t *testing.T, f netspace.Flow, topic string) {
	addr, way := p.server.Way()
	in, alone := newInbox(), newInbox()
	b := p.Open(t, addr)
	subscribe(t, b, topic, in.handle, broker.Queue("q"))
	subscribe(t, b, topic, alone.handle)
	s := publishSeries(t, p.Open(t, p.server.Addr), topic)
	until(t, "messages come", func() bool { return in.count() > 10 && alone.count() > 10 })
	way.Cut(f)
	time.Sleep(cutTime)
	was, wasAlone := in.count(), alone.count()
	way.Heal()
	within(t, p.Back, "the queue's member gets messages", func() bool { return in.count() > was+10 })
	within(t, p.Back, "the one without a queue gets messages", func() bool { return alone.count() > wasAlone+10 })
	p.all(t, s, in)
}
