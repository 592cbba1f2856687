// Package memory is a transport within one process, for tests and for services that live beside their callers.
//
// Addresses are names within one [Transport]: two Transports do not see each other. Messages are copied, so neither
// side sees the other's later changes, and a peer that does not read blocks its sender as a full socket would.
package memory

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/cb02dfca/micro/internal/opener"
	"github.com/cb02dfca/micro/pkg/transport"
)

// The limits.
const (
	backlog = 128 // connections that wait for Accept; a further Dial waits
	window  = 16  // messages under way in one direction of a connection; a further Send waits
)

// Transport connects those who share it. Make it with New. Its methods may be called concurrently.
type Transport struct {
	mu        sync.Mutex
	listeners map[string]*Listener
	next      int
}

var (
	_ transport.Transport = (*Transport)(nil)
	_ transport.Schemed   = (*Transport)(nil)
)

// New returns a Transport on which nobody listens yet.
func New() *Transport { return &Transport{listeners: make(map[string]*Listener)} }

// Open is the transport.Opener of the URL "memory://", which takes no parameters. Each call gives a Transport of its own.
func Open(_ context.Context, u *url.URL) (transport.Transport, error) {
	if _, err := opener.Params(u); err != nil {
		return nil, fmt.Errorf("transport/memory: %w", err)
	}
	if u.Host != "" || u.Path != "" {
		return nil, fmt.Errorf("transport/memory: %s: names no host or path", opener.Redacted(u))
	}
	return New(), nil
}

// Scheme is the label of nodes that listen by a Transport in memory: "memory".
func (t *Transport) Scheme() string { return "memory" }

// Listen takes addr, any text. An empty one, and one that ends in ":0", is any free name: "memory:1" and so on.
func (t *Transport) Listen(ctx context.Context, addr string) (transport.Listener, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("transport/memory: listen on %q: %w", addr, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if addr == "" || strings.HasSuffix(addr, ":0") {
		addr = t.free()
	}
	if _, taken := t.listeners[addr]; taken {
		return nil, fmt.Errorf("transport/memory: listen on %q: %w", addr, transport.ErrTaken)
	}
	l := &Listener{
		transport: t,
		addr:      addr,
		pending:   make(chan *Conn, backlog),
		done:      make(chan struct{}),
		conns:     make(map[*Conn]struct{}),
	}
	t.listeners[addr] = l
	return l, nil
}

func (t *Transport) free() string {
	for {
		t.next++
		name := "memory:" + strconv.Itoa(t.next)
		if _, taken := t.listeners[name]; !taken {
			return name
		}
	}
}

// Dial connects to the listener at addr.
func (t *Transport) Dial(ctx context.Context, addr string) (transport.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%w: dial %q: %w", transport.ErrNotSent, addr, err)
	}
	t.mu.Lock()
	l := t.listeners[addr]
	t.next++
	from := "memory:client-" + strconv.Itoa(t.next)
	t.mu.Unlock()
	if l == nil {
		return nil, refused(addr)
	}
	client, server := pair(from, l)
	select {
	case l.pending <- server:
	case <-l.done:
		return nil, refused(addr)
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: dial %q: %w", transport.ErrNotSent, addr, ctx.Err())
	}
	if !l.holds(server) {
		return nil, refused(addr)
	}
	return client, nil
}

func refused(addr string) error {
	return fmt.Errorf("%w: dial %q: connection refused: nobody listens there", transport.ErrNotSent, addr)
}
