package link

import (
	"bytes"
	"fmt"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/transport"
)

// memoSize is how many different headers a connection remembers, and memoBytes how long one may be.
const (
	memoSize  = 8
	memoBytes = 2 << 10
)

// memo remembers what the headers of calls meant. Callers send the same few again and again: the service, the endpoint and
// the content type make the route, and often the metadata is the same, too.
type memo struct {
	header []byte // of the latest call, whole
	route  *transport.Route
	own    metadata.MD // the framework's part of it
	caller *carried    // the caller's part

	routes [memoSize]struct {
		own   metadata.MD
		route *transport.Route
	}
	next int // the place of the next new route

	slab  []carried
	bytes []byte
}

// carried is the metadata of a call, as its context carries it. It is not used for another call, unless that has the same.
type carried struct{ md metadata.MD }

// Value implements callctx.Values.
func (c *carried) Value(key any) any {
	if metadata.IsIncoming(key) {
		return &c.md
	}
	return nil
}

// find gives the route of a header, the framework's part of it, and the rest. An error breaks the protocol.
func (m *memo) find(header metadata.MD, router transport.Router) (*transport.Route, metadata.MD, *carried, error) {
	if m.route != nil && bytes.Equal(header, m.header) {
		return m.route, m.own, m.caller, nil
	}
	if _, err := metadata.Parse(header); err != nil {
		return nil, nil, nil, fmt.Errorf("%w: metadata of a call: %w", transport.ErrProtocol, err)
	}
	own, rest := split(header)
	own, route := m.routeOf(own, router)
	caller := m.caller
	if caller == nil || !bytes.Equal(caller.md, rest) {
		caller = m.carry(rest)
	}
	if len(header) <= memoBytes {
		m.header = append(m.header[:0], header...)
		m.route, m.own, m.caller = route, own, caller
	}
	return route, own, caller, nil
}

// routeOf gives a copy of the framework's part that nobody changes, and its route.
func (m *memo) routeOf(header metadata.MD, router transport.Router) (metadata.MD, *transport.Route) {
	for i := range m.routes {
		if e := &m.routes[i]; e.route != nil && bytes.Equal(e.own, header) {
			return e.own, e.route
		}
	}
	route := router(header)
	own := route.Header
	if own == nil {
		own = header.Clone()
	}
	if len(own) <= memoBytes {
		e := &m.routes[m.next%memoSize]
		m.next++
		e.own, e.route = own, route
	}
	return own, route
}

// split parts a header into the framework's pairs and the caller's. Our clients send theirs first.
func split(header metadata.MD) (own, rest metadata.MD) {
	n, ended := 0, false
	for key, value := range header.Pairs() {
		switch reserved := isOwn(key); {
		case reserved && ended:
			return header.Except(func(key []byte) bool { return !isOwn(key) }), header.Except(isOwn)
		case reserved:
			n += 1 + len(key) + 2 + len(value)
		default:
			ended = true
		}
	}
	return header[:n:n], header[n:]
}

// isOwn is transport.Reserved for a key as it stands in an encoded header, in lower case.
func isOwn(key []byte) bool {
	return bytes.HasPrefix(key, []byte("micro-")) || string(key) == transport.HeaderContentType
}

// The storage of metadata is allocated for many calls at a time, and never used again: a handler may keep it.
const (
	slabCarried = 64
	slabBytes   = 8 << 10
)

// carry copies a caller's metadata.
func (m *memo) carry(md metadata.MD) *carried {
	if len(m.slab) == 0 {
		m.slab = make([]carried, slabCarried)
	}
	c := &m.slab[0]
	m.slab = m.slab[1:]
	if len(md) > slabBytes/8 {
		c.md = md.Clone()
		return c
	}
	if len(m.bytes) < len(md) {
		m.bytes = make([]byte, slabBytes)
	}
	n := copy(m.bytes, md)
	c.md, m.bytes = metadata.MD(m.bytes[:n:n]), m.bytes[n:]
	return c
}
