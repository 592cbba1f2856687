// Package budget tells how often a client may do something.
package budget

import (
	"sync"
	"time"
)

// maxClients is how many clients a budget tells apart; those beyond share one.
const maxClients = 10_000

// Budget gives each client so many requests a second, and a burst: a token bucket. Its methods may be called
// concurrently.
type Budget struct {
	rate, burst float64

	mu      sync.Mutex
	clients map[string]bucket // of those whose bucket is not full
	swept   time.Time         // when the full ones were last taken out
}

// bucket is what a client had left at some time.
type bucket struct {
	left float64
	at   time.Time
}

// New gives each client rate requests a second, and burst at once.
func New(rate, burst int) *Budget {
	return &Budget{rate: float64(rate), burst: float64(burst), clients: map[string]bucket{}}
}

// Take takes one request from a client's budget. Where none is left, it says after which time there is.
func (b *Budget) Take(client string, now time.Time) (wait time.Duration, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, known := b.clients[client]; !known && len(b.clients) >= maxClients {
		b.sweep(now)
		if len(b.clients) >= maxClients {
			client = ""
		}
	}
	left := b.burst
	if at, known := b.clients[client]; known {
		left = b.left(at, now)
	}
	if left < 1 {
		return time.Duration((1 - left) / b.rate * float64(time.Second)), false
	}
	b.clients[client] = bucket{left - 1, now}
	return 0, true
}

// Back gives back what was taken.
func (b *Budget) Back(client string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if at, known := b.clients[client]; known {
		at.left = min(b.burst, at.left+1)
		b.clients[client] = at
	}
}

// sweep takes out those whose bucket is full, once a second at most. It is called with the lock held.
func (b *Budget) sweep(now time.Time) {
	if now.Sub(b.swept) < time.Second {
		return
	}
	b.swept = now
	for client, at := range b.clients {
		if b.left(at, now) >= b.burst {
			delete(b.clients, client)
		}
	}
}

// Spent reports whether nothing is left of a client's budget.
func (b *Budget) Spent(client string, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	at, known := b.clients[client]
	return known && b.left(at, now) < 1
}

func (b *Budget) left(at bucket, now time.Time) float64 {
	return min(b.burst, at.left+b.rate*max(0, now.Sub(at.at).Seconds()))
}
