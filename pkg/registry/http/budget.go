package http

import (
	"crypto/sha256"
	"fmt"
	"net"
	stdhttp "net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/cb02dfca/micro/pkg/status"
)

const (
	burstSeconds = 10     // writes of so many seconds may come at once
	authRate     = 10     // wrong tokens that a client may send in a second
	maxClients   = 10_000 // that a budget tells apart; those beyond it share one
)

// budget gives each client so many requests a second, and a burst: a token bucket. Its methods may be called
// concurrently.
type budget struct {
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

func newBudget(rate, burst int) *budget {
	return &budget{rate: float64(rate), burst: float64(burst), clients: map[string]bucket{}}
}

// take takes one request from a client's budget. Where none is left, it says after which time there is.
func (b *budget) take(client string, now time.Time) (wait time.Duration, ok bool) {
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

// sweep takes out those whose bucket is full, once a second at most. It is called with the lock held.
func (b *budget) sweep(now time.Time) {
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

// spent reports whether nothing is left of a client's budget.
func (b *budget) spent(client string, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	at, known := b.clients[client]
	return known && b.left(at, now) < 1
}

func (b *budget) left(at bucket, now time.Time) float64 {
	return min(b.burst, at.left+b.rate*max(0, now.Sub(at.at).Seconds()))
}

// peer gives the address that a request came from, and whether it is this machine.
func peer(r *stdhttp.Request) (host string, loopback bool) {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr, false
	}
	a, err := netip.ParseAddr(host)
	return host, err == nil && a.Unmap().IsLoopback()
}

// writer tells who writes: the address. The programs of this machine share theirs, so their leases tell.
func writer(r *stdhttp.Request) string {
	host, loopback := peer(r)
	if secret := r.Header.Get(leaseHeader); loopback && validSecret(secret) {
		sum := sha256.Sum256([]byte(secret))
		return string(sum[:])
	}
	return host
}

// paced lets a client write no faster than MaxWrites.
func (s *Server) paced(next stdhttp.HandlerFunc) stdhttp.HandlerFunc {
	return func(w stdhttp.ResponseWriter, r *stdhttp.Request) {
		if wait, ok := s.writes.take(writer(r), time.Now()); !ok {
			retryAfter(w, wait)
			s.refuse(w, status.ResourceExhausted, "this client writes more than %d times a second", s.o.MaxWrites)
			return
		}
		next(w, r)
	}
}

// barred reports whether a client has sent so many wrong tokens that its next one is not looked at. Of the programs of
// this machine one must not shut out the others.
func (s *Server) barred(r *stdhttp.Request) bool {
	host, loopback := peer(r)
	return !loopback && s.wrong.spent(host, time.Now())
}

// unauthenticated answers a request without the token.
func (s *Server) unauthenticated(w stdhttp.ResponseWriter, r *stdhttp.Request) {
	host, _ := peer(r)
	if wait, ok := s.wrong.take(host, time.Now()); !ok {
		retryAfter(w, wait)
		s.refuse(w, status.ResourceExhausted, "over %d wrong tokens a second from %.60s", authRate, host)
		return
	}
	w.Header().Set("WWW-Authenticate", "Bearer")
	s.refuse(w, status.Unauthenticated, "the registry server wants its token")
}

func retryAfter(w stdhttp.ResponseWriter, wait time.Duration) {
	w.Header().Set("Retry-After", fmt.Sprint(int((wait+time.Second-1)/time.Second)))
}
