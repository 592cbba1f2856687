// Package bodies makes the JSON of a registry server: the bodies of answers, and the lines of watches, each ended by a new line. It keeps what many
// ask for: the JSON of a node, and what tells of all nodes.
package bodies

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"sync"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/http/internal/wire"
	"github.com/cb02dfca/micro/pkg/registry/internal/hub"
)

// Bodies makes the bodies of answers and the lines of watches. Use New. Its methods may be called concurrently. What they give is only read.
type Bodies struct {
	hub      *hub.Hub
	epoch    string
	starting func() bool

	mu    sync.Mutex
	nodes map[string]nodeBody // by id

	whole list
	names kept // the services
}

// New makes the bodies of a server's nodes. starting tells whether owners are expected who have not come back.
func New(nodes *hub.Hub, epoch string, starting func() bool) *Bodies {
	return &Bodies{hub: nodes, epoch: epoch, starting: starting}
}

type nodeBody struct {
	node registry.Node
	json []byte // of node
	put  []byte // as its owner sent it; nil where that is not known
}

// Sent gives the node that a body meant when it was last put under an id.
func (b *Bodies) Sent(id string, body []byte) (registry.Node, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	kept, ok := b.nodes[id]
	return kept.node, ok && kept.put != nil && bytes.Equal(kept.put, body)
}

// Note takes in that a body meant a node, which was put.
func (b *Bodies) Note(n registry.Node, body []byte) {
	made := nodeBody{node: n, json: text(n), put: bytes.Clone(body)}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.room()
	b.nodes[n.ID] = made
}

// room drops everything where most of it is of nodes that have gone. It is called with the lock held.
func (b *Bodies) room() {
	if b.nodes == nil || len(b.nodes) > 2*b.hub.Len()+1000 {
		b.nodes = map[string]nodeBody{}
	}
}

// texts gives the JSON of each node.
func (b *Bodies) texts(nodes []registry.Node) [][]byte {
	known := make([]nodeBody, len(nodes))
	b.mu.Lock()
	for i := range nodes {
		known[i] = b.nodes[nodes[i].ID]
	}
	b.mu.Unlock()
	out := make([][]byte, len(nodes))
	var fresh []int
	for i, n := range nodes { // without the lock, since it takes its time
		if out[i] = known[i].json; out[i] == nil || !known[i].node.Equal(n) {
			out[i] = text(n)
			fresh = append(fresh, i)
		}
	}
	if len(fresh) == 0 {
		return out
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.room()
	for _, i := range fresh {
		id := nodes[i].ID
		if now := b.nodes[id].json; len(now) == len(known[i].json) && (len(now) == 0 || &now[0] == &known[i].json[0]) { // else there is a newer one
			b.nodes[id] = nodeBody{node: nodes[i], json: out[i]}
		}
	}
	return out
}

// kept is a body that holds for a revision.
type kept struct {
	mu       sync.Mutex // while one makes it, others wait for it
	revision uint64
	starting bool
	body     []byte
}

// get gives the body, made anew where it does not hold any more. Who waited while another made it takes that, if it has all that was there
// when he came.
func (k *kept) get(now uint64, starting bool, make func() (uint64, []byte)) []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.body == nil || k.revision < now || k.starting != starting {
		k.revision, k.body = make()
		k.starting = starting
	}
	return k.body
}

// All gives the set of all nodes, in pieces, with its revision. It has what the server has when it is called, or more.
func (b *Bodies) All() (pieces [][]byte, revision uint64) {
	starting := b.starting()
	pieces, revision = b.whole.get(b.hub, b.texts)
	head := append(AppendHead(make([]byte, 0, 128), b.epoch, revision, starting), `,"nodes":[`...)
	return append(append([][]byte{head}, pieces...), []byte("]}\n")), revision
}

// Pieces gives a set, or a line, in pieces: of it all but the nodes and what has gone, and between that the text that fields gives of them.
func (b *Bodies) Pieces(s wire.Set, fields func(build func() []byte) []byte) [][]byte {
	pieces := [][]byte{AppendHead(make([]byte, 0, 128), s.Epoch, s.Revision, s.Starting)}
	if text := fields(func() []byte { return b.appendFields(nil, s) }); len(text) > 0 {
		pieces = append(pieces, text)
	}
	return append(pieces, []byte("}\n"))
}

// Set gives a set, or a line.
func (b *Bodies) Set(s wire.Set) []byte {
	return append(b.appendFields(AppendHead(make([]byte, 0, 512), s.Epoch, s.Revision, s.Starting), s), "}\n"...)
}

// appendFields appends the nodes of a set, or of a line, and what has gone.
func (b *Bodies) appendFields(out []byte, s wire.Set) []byte {
	if s.Nodes != nil {
		out = b.appendNodes(append(out, `,"nodes":`...), *s.Nodes)
	}
	if len(s.Put) > 0 {
		out = b.appendNodes(append(out, `,"put":`...), s.Put)
	}
	if len(s.Gone) > 0 {
		out = append(append(out, `,"gone":`...), text(s.Gone)...)
	}
	return out
}

// AppendHead begins an object of a set.
func AppendHead(out []byte, epoch string, revision uint64, starting bool) []byte {
	out = append(append(append(out, `{"epoch":"`...), epoch...), `","revision":`...)
	out = strconv.AppendUint(out, revision, 10)
	if starting {
		out = append(out, `,"starting":true`...)
	}
	return out
}

func (b *Bodies) appendNodes(out []byte, nodes []registry.Node) []byte {
	texts, size := b.texts(nodes), 2
	for _, text := range texts {
		size += len(text) + 1
	}
	out = append(slices.Grow(out, size), '[')
	for i, text := range texts {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, text...)
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

// Services gives the names of all services, with the number of their nodes and the versions.
func (b *Bodies) Services() []byte {
	return b.names.get(b.hub.Revision(), b.starting(), func() (uint64, []byte) {
		nodes, revision := b.hub.Snapshot("")
		out := append(AppendHead(make([]byte, 0, 128+64*len(nodes)), b.epoch, revision, b.starting()), `,"services":[`...)
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
