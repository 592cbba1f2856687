package nats_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/nats"
)

// leader gives the server that leads the stream, and when that was made; nil for none.
func leader(t *testing.T, servers []*testserver.Server, js jetstream.JetStream) (*testserver.Server, time.Time) {
	t.Helper()
	s, err := js.Stream(t.Context(), "test")
	if err != nil || s.CachedInfo().Cluster == nil {
		return nil, time.Time{}
	}
	for _, server := range servers {
		if server.Addr == s.CachedInfo().Cluster.Leader {
			return server, s.CachedInfo().Created
		}
	}
	return nil, time.Time{}
}

// heard counts bodies.
type heard struct {
	mu  sync.Mutex
	got map[string]int
}

func (h *heard) handle(_ context.Context, m *broker.Message) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.got[string(m.Body)]++
	return nil
}

func (h *heard) missing(bodies []string) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, body := range bodies {
		if h.got[body] == 0 {
			n++
		}
	}
	return n
}

// TestCluster: the leader of a stream on three servers is killed while messages are published, and comes back. What was acknowledged
// is stored once and comes to all, also to those that were at that server.
func TestCluster(t *testing.T) {
	servers := testserver.NATSCluster(t, 3)
	var addrs []string
	for _, s := range servers {
		addrs = append(addrs, s.Addr)
	}
	b, err := openers.Open(t.Context(), "nats://"+strings.Join(addrs, ",")+"?stream=test&replicas=3&ack-wait=5s")
	must(t, err)
	t.Cleanup(func() { must(t, b.Close()) })
	queue, alone := &heard{got: map[string]int{}}, &heard{got: map[string]int{}}
	until(t, "the cluster has a leader", func() bool {
		_, err := b.Publish(t.Context(), &broker.Message{Topic: "orders", Body: []byte("before")})
		return err == nil
	})
	for i, addr := range addrs { // each knows one server, and hears from that of the others
		member := open(t, nats.Options{Servers: []string{addr}, Stream: "test", Replicas: 3, AckWait: 5 * time.Second})
		subscribe(t, member, "orders", queue.handle, broker.Queue("billing"))
		if i == 0 {
			subscribe(t, member, "orders", alone.handle)
		}
	}
	js, err := jetstream.New(raw(t, nats.Options{Servers: []string{strings.Join(addrs, ",nats://")}}))
	must(t, err)

	var mu sync.Mutex
	var taken []string
	var refused atomic.Int64
	acked := func() int { mu.Lock(); defer mu.Unlock(); return len(taken) }
	var stop atomic.Bool
	var publishing sync.WaitGroup
	for p := range 4 {
		publishing.Go(func() {
			for i := 0; !stop.Load(); i++ {
				m := &broker.Message{Topic: "orders", ID: strconv.Itoa(p) + "." + strconv.Itoa(i)}
				m.Body = []byte(m.ID)
				for {
					if _, err := b.Publish(t.Context(), m); err == nil {
						mu.Lock()
						taken = append(taken, m.ID)
						mu.Unlock()
						break
					} else if !errors.Is(err, broker.ErrUnavailable) {
						t.Errorf("Publish gave %v", err)
						return
					}
					refused.Add(1)
				}
			}
		})
	}
	t.Cleanup(func() { stop.Store(true); publishing.Wait() })
	var made time.Time
	for round := range 2 {
		base := acked()
		until(t, "messages are stored", func() bool { return acked() > base+100 })
		var led *testserver.Server
		var at time.Time
		until(t, "the stream has a leader", func() bool { led, at = leader(t, servers, js); return led != nil })
		if round > 0 && !at.Equal(made) {
			t.Errorf("the stream was made at %v, says its new leader; the old one said %v", at, made)
		}
		made = at
		led.Stop("KILL")
		killed, base := time.Now(), acked()
		until(t, "messages are stored by another leader", func() bool { return acked() > base+100 })
		t.Logf("round %d: without the leader it goes on after %v, and %d calls have failed", round, time.Since(killed).Round(time.Millisecond), refused.Load())
		led.MustStart(t)
	}
	base := acked()
	until(t, "messages are stored by all", func() bool { return acked() > base+100 })
	stop.Store(true)
	publishing.Wait()
	began := time.Now()
	until(t, "all that was stored comes", func() bool { return queue.missing(taken)+alone.missing(taken) == 0 })
	queue.mu.Lock()
	again := 0
	for _, times := range queue.got {
		again += times - 1
	}
	queue.mu.Unlock()
	t.Logf("%d messages, the last %v after the last Publish; %d came again to the queue, %d calls failed", len(taken), time.Since(began).Round(time.Millisecond), again, refused.Load())
	if n := count(t, js); n != uint64(len(taken)+1) {
		t.Errorf("%d messages are stored, want %d", n, len(taken)+1)
	}
}
