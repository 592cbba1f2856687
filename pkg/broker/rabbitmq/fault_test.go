package rabbitmq_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/broker/brokertest"
	"github.com/cb02dfca/micro/pkg/broker/rabbitmq"
)

// inbox counts what comes, by body.
type inbox struct {
	mu    sync.Mutex
	times map[string]int
	ids   map[string]string
	last  []*broker.Message
	came  chan struct{} // has a token when something came since it was looked
}

func newInbox() *inbox {
	return &inbox{times: map[string]int{}, ids: map[string]string{}, came: make(chan struct{}, 1)}
}

func (in *inbox) handle(_ context.Context, m *broker.Message) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.times[string(m.Body)]++
	if id, ok := in.ids[string(m.Body)]; ok && id != m.ID {
		in.times["another id"]++
	}
	in.ids[string(m.Body)] = m.ID
	in.last = append(in.last, m)
	select {
	case in.came <- struct{}{}:
	default:
	}
	return nil
}

// until waits for ok, which is called with the inbox locked.
func (in *inbox) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	timeout := time.After(wait)
	for {
		in.mu.Lock()
		is := ok()
		in.mu.Unlock()
		if is {
			return
		}
		select {
		case <-in.came:
		case <-timeout:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// wait gives the messages when n came.
func (in *inbox) wait(t *testing.T, n int) []*broker.Message {
	t.Helper()
	in.until(t, fmt.Sprint(n, " messages"), func() bool { return len(in.last) >= n })
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.last
}

// eventually polls until ok holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(wait); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never came that %s", what)
		}
	}
}

// batch makes n messages with ids, so that they can be published again.
func batch(topic, name string, n int) []*broker.Message {
	ms := make([]*broker.Message, n)
	for i := range ms {
		id := name + "-" + strconv.Itoa(i)
		ms[i] = &broker.Message{Topic: topic, ID: id, Body: []byte(id + strings.Repeat(" ", 500))}
	}
	return ms
}

// RabbitMQ goes while it confirms a Publish of many messages, killed or by itself: the Publish fails and says that it is not known what was published, and comes
// through when it is made again. Nothing that was confirmed before is lost, and what came twice has one id.
func TestRestartMidConfirm(t *testing.T) {
	t.Parallel()
	s := servers.Lend(t)
	for _, signal := range []string{"KILL", "TERM"} {
		o := own(t, s.Addr)
		b, in := open(t, o), newInbox()
		_, err := open(t, o).Subscribe(t.Context(), "orders", in.handle, broker.Queue("q"))
		must(t, err)
		const early, many = 200, 10_000
		_, err = b.Publish(t.Context(), batch("orders", "early", early)...)
		must(t, err)
		result := make(chan error, 1)
		ms := batch("orders", "late", many)
		go func() { _, err := b.Publish(t.Context(), ms...); result <- err }()
		in.until(t, "the first of many", func() bool { return len(in.times) > early+10 })
		s.Stop(signal)
		if err := <-result; !errors.Is(err, broker.ErrUnavailable) || !strings.Contains(err.Error(), "it is not known what was published") {
			t.Errorf("%s: Publish gave %v, want ErrUnavailable, and that it is not known", signal, err)
		}
		s.MustStart(t)
		eventually(t, "all is published again", func() bool {
			_, err := b.Publish(t.Context(), ms...)
			if err != nil && !errors.Is(err, broker.ErrUnavailable) {
				t.Errorf("%s: Publish gave %v", signal, err)
			}
			return err == nil
		})
		in.until(t, "all messages", func() bool { return len(in.times) >= early+many })
		in.mu.Lock()
		if len(in.times) != early+many || in.times["another id"] > 0 {
			t.Errorf("%s: %d messages came, want %d; %d of them under another id", signal, len(in.times), early+many, in.times["another id"])
		}
		in.mu.Unlock()
	}
}

// A connection that breaks is made again: subscriptions, with a queue and without, get what is published then.
func TestConnectionBreaks(t *testing.T) {
	t.Parallel()
	o := own(t, servers.Addr(t))
	way, said := testserver.NewRelay(t, o.Addrs[0]), &brokertest.Journal{}
	publisher := open(t, o)
	o.Addrs, o.Logger = []string{way.Addr}, said.Logger()
	b := open(t, o)
	named, alone := newInbox(), newInbox()
	_, err := b.Subscribe(t.Context(), "t", named.handle, broker.Queue("q"))
	must(t, err)
	_, err = b.Subscribe(t.Context(), "t", alone.handle)
	must(t, err)
	for round := range 3 {
		way.Kill()
		eventually(t, "it is away", func() bool { return strings.Count(said.String(), "rabbitmq is away") > 2*round })
		if _, err := b.Publish(t.Context(), &broker.Message{Topic: "t", Body: []byte("lost")}); !errors.Is(err, broker.ErrUnavailable) {
			t.Errorf("Publish gave %v, want ErrUnavailable", err)
		}
		kept := fmt.Sprint("kept ", round)
		_, err := publisher.Publish(t.Context(), &broker.Message{Topic: "t", Body: []byte(kept)})
		must(t, err)
		way.Revive()
		named.until(t, "what the queue has kept", func() bool { return named.times[kept] > 0 })
		after := fmt.Sprint("after ", round)
		eventually(t, "both are there again", func() bool {
			_, err := b.Publish(t.Context(), &broker.Message{Topic: "t", Body: []byte(after)})
			named.mu.Lock()
			alone.mu.Lock()
			defer named.mu.Unlock()
			defer alone.mu.Unlock()
			return err == nil && named.times[after] > 0 && alone.times[after] > 0
		})
	}
	must(t, b.Close()) // no handler runs any more
	if n := named.times["lost"]; n != 0 {
		t.Errorf("what could not be published came %d times", n)
	}
}

// A server that accepts connections and says nothing holds nobody up for ever, nor Close.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	o := own(t, servers.Addr(t))
	way := testserver.NewRelay(t, o.Addrs[0])
	way.Hold()
	o.Addrs, o.Timeout = []string{way.Addr}, 300*time.Millisecond
	b := open(t, o)
	if _, err := b.Publish(t.Context(), &broker.Message{Topic: "t"}); !errors.Is(err, broker.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Publish gave %v, want ErrUnavailable and DeadlineExceeded", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	o.Timeout = wait
	patient := open(t, o)
	done := make(chan error, 1)
	go func() { _, err := patient.Publish(ctx, &broker.Message{Topic: "t"}); done <- err }()
	time.AfterFunc(20*time.Millisecond, cancel)
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Publish gave %v, want Canceled", err)
	}
	go func() {
		_, err := patient.Subscribe(context.Background(), "t", newInbox().handle)
		done <- err
	}()
	time.Sleep(10 * time.Millisecond) // it is waiting, as a rule
	must(t, patient.Close())
	if err := <-done; !errors.Is(err, broker.ErrClosed) {
		t.Errorf("Subscribe beside Close gave %v, want ErrClosed", err)
	}
	way.Release()
	eventually(t, "it answers", func() bool { _, err := b.Publish(t.Context(), &broker.Message{Topic: "t"}); return err == nil })
}

// A RabbitMQ that is short of memory takes no messages: Publish ends with its context, says why, and the messages never come. What is
// kept is delivered and acknowledged all the same.
func TestShortOfMemory(t *testing.T) {
	t.Parallel()
	s := servers.Own(t, "vm_memory_high_watermark.absolute = 1MB")
	o := own(t, s.Addr)
	b, in := open(t, o), newInbox()
	_, err := b.Subscribe(t.Context(), "t", in.handle, broker.Queue("q"))
	must(t, err)
	// RabbitMQ tells a publisher when it gets the first message.
	var unknown, unsent int
	eventually(t, "the publisher knows", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		_, err := b.Publish(ctx, &broker.Message{Topic: "t", Body: []byte(fmt.Sprint(unknown + unsent))})
		switch {
		case !errors.Is(err, broker.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded):
			t.Errorf("Publish gave %v, want ErrUnavailable and DeadlineExceeded", err)
		case strings.Contains(err.Error(), "takes no messages (low on memory)"):
			unsent++
		default:
			unknown++
		}
		return unsent == 3
	})
	if unknown > 2 {
		t.Errorf("%d messages were written to a server that takes none", unknown)
	}
	if len(in.last) > unknown {
		t.Errorf("%d messages came, want %d at most", len(in.last), unknown)
	}
}

// Dead letters are kept until somebody comes for them, with what they were.
func TestDeadLettersAreKept(t *testing.T) {
	t.Parallel()
	o := own(t, servers.Addr(t))
	o.Tries = 2
	b, in := open(t, o), newInbox()
	said := &brokertest.Journal{}
	o.Logger = said.Logger()
	bad, err := open(t, o).Subscribe(t.Context(), "orders", func(ctx context.Context, m *broker.Message) error {
		_ = in.handle(ctx, &broker.Message{ID: m.ID, Body: []byte(string(m.Body))})
		clear(m.Body) // it is the handler's own
		m.Topic, m.Header = "", nil
		return errors.New("no such order")
	})
	must(t, err)
	report, err := b.Publish(t.Context(), &broker.Message{Topic: "orders", Body: []byte("7")})
	must(t, err)
	eventually(t, "it is a dead letter", func() bool { return strings.Contains(said.String(), "is a dead letter") })
	must(t, bad.Close())
	dead := newInbox()
	_, err = b.Subscribe(t.Context(), broker.DeadTopic("orders"), dead.handle, broker.Queue("dead"))
	must(t, err)
	m := dead.wait(t, 1)[0]
	if string(m.Body) != "7" || m.ID != report.ID || m.Header.Get(broker.DeadReasonKey) != "no such order" || m.Header.Get(broker.DeadTriesKey) != "2" {
		t.Errorf("the dead letter is %q with id %q and %v", m.Body, m.ID, m.Header)
	}
	if n := in.times["7"]; n != 2 || len(in.last) != 2 {
		t.Errorf("the message came %d times as it was, and %d times in all, want 2", n, len(in.last))
	}
}

// Publish tells whether there was anybody to hear it.
func TestNobodyListens(t *testing.T) {
	t.Parallel()
	b := open(t, own(t, servers.Addr(t)))
	message := func(topic string) *broker.Message { return &broker.Message{Topic: topic, ID: "same"} }
	r, err := b.Publish(t.Context(), message("nobody"), message("nobody"))
	if err != nil || r.Deliveries == nil || len(r.Deliveries) != 0 {
		t.Errorf("to nobody: %v, %v, want deliveries that are known to be none", r.Deliveries, err)
	}
	_, err = b.Subscribe(t.Context(), "somebody", newInbox().handle)
	must(t, err)
	for _, ms := range [][]*broker.Message{{message("somebody")}, {message("nobody"), message("somebody"), message("nobody")}} {
		if r, err := b.Publish(t.Context(), ms...); err != nil || r.Deliveries != nil {
			t.Errorf("to somebody: %v, %v, want deliveries that are not known", r.Deliveries, err)
		}
	}
}

// A subscription's queue that somebody deletes is made again.
func TestQueueDeleted(t *testing.T) {
	t.Parallel()
	o := own(t, servers.Addr(t))
	b, in := open(t, o), newInbox()
	_, err := b.Subscribe(t.Context(), "t", in.handle, broker.Queue("q"))
	must(t, err)
	ch := raw(t, o.Addrs[0])
	_, err = ch.QueueDelete(o.Exchange+":t:q", false, false, false)
	must(t, err)
	eventually(t, "a message comes", func() bool {
		_, err := b.Publish(t.Context(), &broker.Message{Topic: "t", Body: []byte("x")})
		must(t, err)
		in.mu.Lock()
		defer in.mu.Unlock()
		return in.times["x"] > 0
	})
	must(t, ch.ExchangeDelete(o.Exchange, false, false))
	eventually(t, "a message is published", func() bool {
		_, err := b.Publish(t.Context(), &broker.Message{Topic: "t", Body: []byte("y")})
		return err == nil
	})
}

// A quorum queue that RabbitMQ has forgotten the log of, as it does where it is killed just after another made one, is told of, and works once it
// was deleted.
func TestQueueWithoutLeader(t *testing.T) {
	t.Parallel()
	s := servers.Lend(t)
	o := own(t, s.Addr)
	o.QueueType, o.Timeout = rabbitmq.Quorum, 2*time.Second
	name := o.Exchange + ":t:q"
	args := amqp.Table{"x-queue-type": "quorum", "x-delivery-limit": int32(20), "x-dead-letter-exchange": o.Exchange, "x-dead-letter-routing-key": broker.DeadTopic("t")}
	_, err := raw(t, s.Addr).QueueDeclare(name, true, false, false, false, args)
	must(t, err)
	s.Stop("KILL")
	s.MustStart(t)
	b, in := open(t, o), newInbox()
	if sub, err := b.Subscribe(t.Context(), "t", in.handle, broker.Queue("q")); err == nil {
		must(t, sub.Close())
		t.Log("this RabbitMQ does not forget")
	} else if !errors.Is(err, broker.ErrUnavailable) || !strings.Contains(err.Error(), "the quorum queue "+name+" has no leader") {
		t.Errorf("Subscribe to a queue without a leader gave %v", err)
	}
	_, err = raw(t, s.Addr).QueueDelete(name, false, false, false)
	must(t, err)
	_, err = b.Subscribe(t.Context(), "t", in.handle, broker.Queue("q"))
	must(t, err)
	_, err = b.Publish(t.Context(), &broker.Message{Topic: "t", Body: []byte("x")})
	must(t, err)
	in.wait(t, 1)
}
