package bodies

import (
	"cmp"
	"slices"
	"strings"
	"sync"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/internal/hub"
)

// partSize is how many bytes of JSON a part of a list has before it is cut in two.
const partSize = 64 << 10

// list is the JSON of all nodes, in parts: a change costs the part where it is, and a list of many nodes that change all the time no more than
// what changed since the last one. Its methods may be called concurrently.
type list struct {
	mu       sync.Mutex // while one brings it up to date, others wait for it
	made     bool
	revision uint64
	parts    []*part
	services map[string]string // by node id
}

// part is some nodes, at least one, in the order of registry.Sort.
type part struct {
	nodes []listed
	size  int
	text  []byte // of all, each behind a comma; nil: it is to be made
}

// listed is a node of a list.
type listed struct {
	service, id string
	text        []byte
}

func (n listed) compare(m listed) int {
	return cmp.Or(strings.Compare(n.service, m.service), strings.Compare(n.id, m.id))
}

// get gives the JSON of all nodes that there are when it is called, or more, in pieces which are an array without its brackets.
func (l *list) get(h *hub.Hub, texts func([]registry.Node) [][]byte) (pieces [][]byte, revision uint64) {
	now := h.Revision()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.made || l.revision < now {
		l.follow(h, texts)
	}
	pieces = make([][]byte, 0, len(l.parts))
	for _, p := range l.parts {
		pieces = append(pieces, p.join())
	}
	if len(pieces) > 0 {
		pieces[0] = pieces[0][1:]
	}
	return pieces, l.revision
}

// follow brings the list up to date.
func (l *list) follow(h *hub.Hub, texts func([]registry.Node) [][]byte) {
	if l.made {
		if c, revision, ok := h.Since("", l.revision); ok {
			l.revision = revision
			for _, id := range c.Gone {
				l.drop(id)
			}
			for i, text := range texts(c.Put) {
				l.put(listed{c.Put[i].Service, c.Put[i].ID, text})
			}
			return
		}
	}
	nodes, revision := h.Snapshot("")
	l.made, l.revision, l.parts, l.services = true, revision, nil, make(map[string]string, len(nodes))
	for i, text := range texts(nodes) {
		l.put(listed{nodes[i].Service, nodes[i].ID, text})
	}
}

// find gives the part that n belongs into, and its place there. It is called where there are parts.
func (l *list) find(n listed) (in, at int, there bool) {
	in, begins := slices.BinarySearchFunc(l.parts, n, func(p *part, n listed) int { return p.nodes[0].compare(n) })
	if !begins && in > 0 {
		in--
	}
	at, there = slices.BinarySearchFunc(l.parts[in].nodes, n, listed.compare)
	return in, at, there
}

func (l *list) put(n listed) {
	if service, ok := l.services[n.id]; ok && service != n.service {
		l.drop(n.id)
	}
	l.services[n.id] = n.service
	if len(l.parts) == 0 {
		l.parts = []*part{{nodes: []listed{n}, size: len(n.text)}}
		return
	}
	in, at, there := l.find(n)
	p := l.parts[in]
	p.text = nil
	p.size += len(n.text)
	if there {
		p.size -= len(p.nodes[at].text)
		p.nodes[at] = n
	} else {
		p.nodes = slices.Insert(p.nodes, at, n)
	}
	if p.size > partSize && len(p.nodes) > 1 {
		l.parts = slices.Insert(l.parts, in+1, p.halve())
	}
}

func (l *list) drop(id string) {
	service, ok := l.services[id]
	if !ok {
		return // one that came and went since
	}
	delete(l.services, id)
	in, at, _ := l.find(listed{service: service, id: id})
	p := l.parts[in]
	p.text = nil
	p.size -= len(p.nodes[at].text)
	if p.nodes = slices.Delete(p.nodes, at, at+1); len(p.nodes) == 0 {
		l.parts = slices.Delete(l.parts, in, in+1)
	}
}

// halve gives the second half of a part, which it loses.
func (p *part) halve() *part {
	half := len(p.nodes) / 2
	second := &part{nodes: slices.Clone(p.nodes[half:])}
	p.nodes = slices.Delete(p.nodes, half, len(p.nodes))
	for _, n := range second.nodes {
		second.size += len(n.text)
	}
	p.size -= second.size
	return second
}

// join gives a part's text, which is not changed any more.
func (p *part) join() []byte {
	if p.text == nil {
		p.text = make([]byte, 0, p.size+len(p.nodes))
		for _, n := range p.nodes {
			p.text = append(append(p.text, ','), n.text...)
		}
	}
	return p.text
}
