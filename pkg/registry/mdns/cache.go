package mdns

import (
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/mdns/internal/wire"
)

// Limits of what is believed.
const (
	maxNodes     = 4096     // in a cache
	maxPerSource = 1024     // of them from one other host
	maxSize      = 64 << 20 // bytes of a cache's nodes: a packet of 200 bytes may inflate to a node of a megabyte
	maxSizeFrom  = 16 << 20 // of them from one other host
	minTTL       = time.Second
	maxTTL       = 120 * time.Second // go-micro's, which it never renews
)

// source is who sent a packet: this machine, by whichever of its addresses, or the address of another.
type source struct{ addr netip.Addr }

// local reports whether it is this machine.
func (s source) local() bool { return !s.addr.IsValid() }

// heard is a node that was heard of.
type heard struct {
	node    registry.Node
	from    source
	ttl     time.Duration
	expires time.Time
	size    int       // of node, in bytes
	asked   int       // refresh questions since it was last heard
	refresh time.Time // of the next one
}

// cache is the nodes that were heard of, by instance name (RFC 6762 section 5.2 and 10). It is under its owner's lock;
// times are given.
type cache struct {
	nodes map[string]*heard
	ids   map[string]string // id to instance: an id stands once
	from  map[source]share
	size  int  // of all nodes, in bytes
	told  bool // that nodes are left out
}

// share is how much of a cache is from one source.
type share struct{ nodes, size int }

func newCache() *cache {
	return &cache{nodes: map[string]*heard{}, ids: map[string]string{}, from: map[source]share{}}
}

// apply takes in what a packet says of one node. It reports whether something was learnt: a node that is new, is
// another than before, or is gone. Who was heard first holds a node until its ttl is over, but for this machine, whose
// packets nobody else can send.
func (c *cache) apply(f wire.Found, from source, now time.Time) bool {
	h := c.nodes[f.Instance]
	if h != nil && h.from != from && !from.local() && now.Before(h.expires) {
		return false
	}
	if f.Gone {
		if h == nil || h.from != from {
			return false
		}
		c.remove(f.Instance)
		return true
	}
	if other, ok := c.ids[f.Node.ID]; ok && other != f.Instance {
		if old := c.nodes[other]; now.Before(old.expires) && (old.from.local() || !from.local()) {
			return false
		}
		c.remove(other)
	}
	size := sizeOf(f.Node)
	if !c.room(h, from, size) {
		return false
	}
	learnt := h == nil || !h.node.Equal(f.Node)
	if h == nil || h.from != from {
		c.remove(f.Instance)
		h = &heard{from: from}
		c.nodes[f.Instance] = h
		c.ids[f.Node.ID] = f.Instance
		c.account(from, 1, 0)
	}
	c.account(from, 0, size-h.size)
	h.node, h.size, h.ttl, h.asked = f.Node, size, min(max(f.TTL, minTTL), maxTTL), 0
	h.expires = now.Add(h.ttl)
	h.plan()
	return learnt
}

// room reports whether a node of size bytes may be kept, in the place of old where there is one.
func (c *cache) room(old *heard, from source, size int) bool {
	nodes, all, own := len(c.nodes)+1, c.size+size, c.from[from]
	own.nodes, own.size = own.nodes+1, own.size+size
	if old != nil {
		nodes, all = nodes-1, all-old.size
		if old.from == from {
			own.nodes, own.size = own.nodes-1, own.size-old.size
		}
	}
	return nodes <= maxNodes && all <= maxSize && (from.local() || own.nodes <= maxPerSource && own.size <= maxSizeFrom)
}

// account adds to what the cache holds from a source.
func (c *cache) account(from source, nodes, size int) {
	s := c.from[from]
	s.nodes, s.size = s.nodes+nodes, s.size+size
	c.size += size
	if s.nodes == 0 {
		delete(c.from, from)
		return
	}
	c.from[from] = s
}

// sizeOf gives about how many bytes of memory a node takes.
func sizeOf(n registry.Node) int {
	const record, pair, endpoint = 256, 64, 128 // what Go takes beside the text
	size := record + len(n.ID) + len(n.Service) + len(n.Version) + len(n.Address)
	for k, v := range n.Metadata {
		size += pair + len(k) + len(v)
	}
	for _, e := range n.Endpoints {
		size += endpoint + len(e.Name) + sizeOfValue(e.Request) + sizeOfValue(e.Response)
		for k, v := range e.Metadata {
			size += pair + len(k) + len(v)
		}
	}
	return size
}

func sizeOfValue(v *registry.Value) int {
	if v == nil {
		return 0
	}
	size := 80 + len(v.Name) + len(v.Type)
	for _, field := range v.Values {
		size += sizeOfValue(field)
	}
	return size
}

// plan sets when to ask next whether the node is still there: at 80, 85, 90 and 95 percent of its ttl, each time up to
// two percent later (RFC 6762 section 5.2).
func (h *heard) plan() {
	h.refresh = time.Time{}
	if h.asked < 4 {
		part := h.ttl / 100
		h.refresh = h.expires.Add(-part*time.Duration(20-5*h.asked) + rand.N(2*part))
	}
}

func (c *cache) remove(instance string) {
	h := c.nodes[instance]
	if h == nil {
		return
	}
	delete(c.nodes, instance)
	delete(c.ids, h.node.ID)
	c.account(h.from, -1, -h.size)
}

// expire takes away the nodes whose ttl is over, and gives them.
func (c *cache) expire(now time.Time) (out []registry.Node) {
	for instance, h := range c.nodes {
		if !now.Before(h.expires) {
			out = append(out, h.node)
			c.remove(instance)
		}
	}
	return out
}

// stale gives the services of which nodes have to be asked for again now, among those that are wanted.
func (c *cache) stale(now time.Time, wanted func(service string) bool) map[string]struct{} {
	var out map[string]struct{}
	for _, h := range c.nodes {
		if h.refresh.IsZero() || now.Before(h.refresh) || !wanted(h.node.Service) {
			continue
		}
		if out == nil {
			out = map[string]struct{}{}
		}
		out[h.node.Service] = struct{}{}
		h.asked++
		h.plan()
	}
	return out
}

// next is when a node expires or has to be asked for; zero: never.
func (c *cache) next(wanted func(service string) bool) (next time.Time) {
	for _, h := range c.nodes {
		next = sooner(next, h.expires)
		if wanted(h.node.Service) {
			next = sooner(next, h.refresh)
		}
	}
	return next
}

// live gives the nodes of a service, or of all with the empty name, in no order.
func (c *cache) live(service string, now time.Time) (out []registry.Node) {
	for _, h := range c.nodes {
		if (service == "" || service == h.node.Service) && now.Before(h.expires) {
			out = append(out, h.node)
		}
	}
	return out
}
