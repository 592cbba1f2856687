// Package remote is what the clients of registries on other machines have in common: requests that take turns and end with
// Close, and what a failure says.
package remote

import (
	"context"
	"hash/maphash"
	"sync"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
)

// turns is how many there are: ids share them by hash.
const turns = 64

// Turns gives those who make requests for nodes their turns, one at a time for an id, until it is closed. Use NewTurns. Its methods
// may be called concurrently.
type Turns struct {
	turn  [turns]chan struct{}
	seed  maphash.Seed
	force context.Context // ends when requests under way are broken off
	stop  context.CancelFunc

	mu     sync.Mutex
	closed bool
	busy   sync.WaitGroup
}

// NewTurns gives open ones.
func NewTurns() *Turns {
	t := &Turns{seed: maphash.MakeSeed()}
	for i := range t.turn {
		t.turn[i] = make(chan struct{}, 1)
	}
	t.force, t.stop = context.WithCancel(context.Background())
	return t
}

// Begin says that requests for a node are about to be made, and waits for their turn; done ends it. Their context also ends
// when Close runs out of patience. The error is ctx's, or ErrClosed.
func (t *Turns) Begin(ctx context.Context, id string) (_ context.Context, done func(), err error) {
	if !t.enter() {
		return nil, nil, registry.ErrClosed
	}
	ctx, cancel := context.WithCancel(ctx)
	drop := context.AfterFunc(t.force, cancel)
	turn := t.turn[maphash.String(t.seed, id)%turns]
	end := func() { drop(); cancel(); t.busy.Done() }
	select {
	case turn <- struct{}{}:
		return ctx, func() { <-turn; end() }, nil
	case <-ctx.Done():
		err := ctx.Err()
		end()
		if t.force.Err() != nil {
			err = registry.ErrClosed
		}
		return nil, nil, err
	}
}

// Go runs f on a goroutine that Close waits for, whose context ends with the waiting at the latest. It reports whether it does:
// not after Close.
func (t *Turns) Go(f func(ctx context.Context)) bool {
	if !t.enter() {
		return false
	}
	go func() {
		defer t.busy.Done()
		f(t.force)
	}()
	return true
}

func (t *Turns) enter() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.busy.Add(1)
	return true
}

// Close gives no more turns, and waits for what has begun. What is not over after patience it breaks off.
func (t *Turns) Close(patience time.Duration) {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	force := time.AfterFunc(patience, t.stop)
	t.busy.Wait()
	force.Stop()
	t.stop()
}
