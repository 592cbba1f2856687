package server_test

import (
	"context"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/transport/http"
)

// goroutine names the goroutine that it runs on. No two ever have the same name.
func goroutine() string {
	id := make([]byte, 40) // "goroutine 7 [running]:" and more
	return strings.Fields(string(id[:runtime.Stack(id, false)]))[1]
}

// besides is a service with a fast endpoint and one that a test fills, and a client that has one connection to it.
type besides struct {
	t       *testing.T
	client  *client.Client
	to      client.CallOption
	readers sync.Map     // names of goroutines that read the connection: the fast endpoint runs there, and nowhere else
	inline  atomic.Int32 // calls of the slow endpoint that ran on one of them
	running atomic.Int32 // calls of the slow endpoint
	beside  atomic.Int32 // the most of these that a fast call has seen
}

func newBesides(t *testing.T, slow func()) *besides {
	t.Helper()
	b := &besides{t: t}
	s := newServer(t)
	_ = server.Handle(s, "Say.Hello", func(ctx context.Context, in *Hello) (*Greeting, error) {
		b.readers.Store(goroutine(), true)
		if n := b.running.Load(); n > b.beside.Load() {
			b.beside.Store(n)
		}
		return hello(ctx, in)
	}, server.Inline())
	_ = server.Handle(s, "Say.Slow", func(context.Context, *Hello) (*Greeting, error) {
		if _, reads := b.readers.Load(goroutine()); reads {
			b.inline.Add(1)
		}
		b.running.Add(1)
		defer b.running.Add(-1)
		slow()
		return &Greeting{}, nil
	})
	tr, err := http.New(http.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := tr.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	stop := serve(s, l)
	if b.client, err = client.New(client.WithTransport(tr), client.WithTimeout(30*time.Second)); err != nil {
		t.Fatal(err)
	}
	b.to = client.Address(l.Addr())
	t.Cleanup(func() {
		_ = b.client.Close()
		if err := stop(); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	b.fast(10)
	return b
}

// fast makes n fast calls.
func (b *besides) fast(n int) {
	b.t.Helper()
	for range n {
		rsp, err := client.Call[Greeting](context.Background(), b.client, "greeter", "Say.Hello", &Hello{Name: "x"}, b.to)
		if err != nil || rsp.Msg != "Hello x" {
			b.t.Errorf("a fast call: %v, %v", rsp, err)
			return
		}
	}
}

// slow makes n slow calls at once and waits for them.
func (b *besides) slow(n int) {
	b.t.Helper()
	var calls sync.WaitGroup
	for range n {
		calls.Go(func() {
			if err := b.client.Call(context.Background(), "greeter", "Say.Slow", &Hello{}, nil, b.to); err != nil {
				b.t.Errorf("a slow call: %v", err)
			}
		})
	}
	calls.Wait()
}

// TestTwoMilliseconds: five calls of a handler that takes 2 ms run where they hold up others. From then on they run beside each
// other, and fast calls beside them.
func TestTwoMilliseconds(t *testing.T) {
	t.Parallel()
	b := newBesides(t, func() { time.Sleep(2 * time.Millisecond) })
	for range 20 {
		b.slow(1)
		b.fast(1)
	}
	first := b.inline.Load()
	for round := 0; b.beside.Load() < 4; round++ {
		if round == 100 {
			t.Fatalf("a fast call has seen %d slow ones running at once, of 16; want 4", b.beside.Load())
		}
		done := make(chan struct{})
		go func() { defer close(done); b.slow(16) }()
		for over := false; !over; {
			b.fast(1)
			select {
			case <-done:
				over = true
			default:
			}
		}
	}
	if n := b.inline.Load(); n != first || n > 5 {
		t.Errorf("%d calls of 2 ms held up others at first, %d in all; want 5 at most, and no more", first, n)
	}
}

// TestLong: the first call of a handler that takes long holds up others for a moment, the next ones never.
func TestLong(t *testing.T) {
	t.Parallel()
	running, release := make(chan struct{}), make(chan struct{})
	b := newBesides(t, func() { running <- struct{}{}; <-release })
	for range 5 {
		done := make(chan struct{})
		go func() { defer close(done); b.slow(1) }()
		<-running
		b.fast(50)
		release <- struct{}{}
		<-done
	}
	if n := b.inline.Load(); n > 1 {
		t.Errorf("%d calls ran where they hold up others, want 1", n)
	}
}

// TestBlocked: calls that never return, more than one goroutine's worth at a time, hold up nobody.
func TestBlocked(t *testing.T) {
	t.Parallel()
	running, release := make(chan struct{}), make(chan struct{})
	b := newBesides(t, func() { running <- struct{}{}; <-release })
	done := make(chan struct{})
	go func() { defer close(done); b.slow(8) }()
	for range 8 {
		<-running
		b.fast(20)
	}
	b.fast(200)
	if n := b.running.Load(); n != 8 {
		t.Errorf("%d calls are running, want 8", n)
	}
	close(release)
	<-done
}
