package http

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"sync"

	"github.com/cb02dfca/micro/pkg/registry"
)

// bodies makes the bodies of answers and the lines of watches, each ended by a new line. It keeps what many ask for: the JSON of a node,
// and the answers that tell of all nodes, as long as they hold. Its methods may be called concurrently. What they give is only read.
type bodies struct {
	count func() int // of all nodes

	mu    sync.Mutex
	nodes map[string]nodeBody // by id

	whole kept // the set of all nodes
	names kept // the services
}

type nodeBody struct {
	node registry.Node
	json []byte // of node
	put  []byte // as its owner sent it; nil where that is not known
}

// sent gives the node that a body meant when it was last put under an id.
func (b *bodies) sent(id string, body []byte) (registry.Node, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	kept, ok := b.nodes[id]
	return kept.node, ok && kept.put != nil && bytes.Equal(kept.put, body)
}

// note takes in that a body meant a node, which was put.
func (b *bodies) note(n registry.Node, body []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.room()
	b.nodes[n.ID] = nodeBody{node: n, json: text(n), put: bytes.Clone(body)}
}

// room drops everything where most of it is of nodes that have gone. It is called with the lock held.
func (b *bodies) room() {
	if b.nodes == nil || len(b.nodes) > 2*b.count()+1000 {
		b.nodes = map[string]nodeBody{}
	}
}

// kept is a body that holds for a revision.
type kept struct {
	mu       sync.Mutex // while one makes it, others wait for it
	revision uint64
	starting bool
	body     []byte
}

// all gives the set of all nodes.
func (b *bodies) all(s *Server) []byte {
	return b.whole.get(s, func() (uint64, []byte) {
		found := s.set("")
		return found.Revision, b.set(found)
	})
}

// get gives the body, made anew where it does not hold any more.
func (k *kept) get(s *Server, make func() (uint64, []byte)) []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	starting := s.starting()
	if k.body == nil || k.revision != s.nodes.Revision() || k.starting != starting {
		k.revision, k.body = make()
		k.starting = starting
	}
	return k.body
}

// set gives a set, or a line.
func (b *bodies) set(s set) []byte {
	size := 128
	if s.Nodes != nil {
		size += 256 * len(*s.Nodes)
	}
	out := appendHead(make([]byte, 0, size), s.Epoch, s.Revision, s.Starting)
	if s.Nodes != nil {
		out = b.appendNodes(append(out, `,"nodes":`...), *s.Nodes)
	}
	if len(s.Put) > 0 {
		out = b.appendNodes(append(out, `,"put":`...), s.Put)
	}
	if len(s.Gone) > 0 {
		out = append(append(out, `,"gone":`...), text(s.Gone)...)
	}
	return append(out, "}\n"...)
}

// appendHead begins an object of a set.
func appendHead(out []byte, epoch string, revision uint64, starting bool) []byte {
	out = append(append(append(out, `{"epoch":"`...), epoch...), `","revision":`...)
	out = strconv.AppendUint(out, revision, 10)
	if starting {
		out = append(out, `,"starting":true`...)
	}
	return out
}

func (b *bodies) appendNodes(out []byte, nodes []registry.Node) []byte {
	out = append(out, '[')
	b.mu.Lock()
	defer b.mu.Unlock()
	b.room()
	for i, n := range nodes {
		if i > 0 {
			out = append(out, ',')
		}
		kept, ok := b.nodes[n.ID]
		if !ok || !kept.node.Equal(n) {
			kept = nodeBody{node: n, json: text(n)}
			b.nodes[n.ID] = kept
		}
		out = append(out, kept.json...)
	}
	return append(out, ']')
}

// text gives the JSON of what was validated.
func text(v any) []byte {
	out, err := json.Marshal(v)
	if err != nil { // cannot be
		return []byte("null")
	}
	return out
}

// services gives the names of all services, with the number of their nodes and the versions.
func (b *bodies) services(s *Server) []byte {
	return b.names.get(s, func() (uint64, []byte) {
		nodes, revision := s.nodes.Snapshot("")
		out := append(appendHead(make([]byte, 0, 128+64*len(nodes)), s.epoch, revision, s.starting()), `,"services":[`...)
		for len(nodes) > 0 { // sorted by service
			n := 1
			for n < len(nodes) && nodes[n].Service == nodes[0].Service {
				n++
			}
			out = appendService(out, nodes[:n])
			if nodes = nodes[n:]; len(nodes) > 0 {
				out = append(out, ',')
			}
		}
		return revision, append(out, "]}\n"...)
	})
}

// appendService appends the entry of a service, whose name is JSON as it stands.
func appendService(out []byte, nodes []registry.Node) []byte {
	out = append(append(append(out, `{"name":"`...), nodes[0].Service...), `","nodes":`...)
	out = strconv.AppendInt(out, int64(len(nodes)), 10)
	versions := make([]string, 0, len(nodes))
	for _, n := range nodes {
		versions = append(versions, n.Version)
	}
	slices.Sort(versions)
	out = append(out, `,"versions":[`...)
	for i, v := range slices.Compact(versions) {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, text(v)...)
	}
	return append(out, "]}"...)
}
