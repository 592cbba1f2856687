package gossip

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/cb02dfca/micro/pkg/registry"
	leases "github.com/cb02dfca/micro/pkg/registry/internal/lease"
)

// The limits of what is sent and taken.
const (
	maxNodes   = 4096      // of one member
	maxMembers = 4096      //
	maxSet     = 8 << 20   // bytes of the records of one member
	maxState   = 12 << 20  // bytes of the records that a meeting begins with; memberlist takes 20 MB, with all else
	maxTotal   = 64 << 20  // bytes of the records of all members
	maxMessage = 16 << 20  // bytes of a message
	maxPacket  = 1200      // bytes of a change that is gossiped
	maxVersion = 1<<62 - 1 //
)

// format is the version of all below, told to memberlist as the delegate's protocol, and the first byte of meta.
const format = 1

// The kinds of messages, their first byte. The rest is JSON.
const (
	kindChange = 'c'
	kindWant   = 'w'
	kindSet    = 's'
	kindState  = 'p' // in an exchange of all sets, not by itself
)

// meta is what memberlist says of a member beside its name and address.
type meta struct {
	start   uint64 // when it was started, Unix nanoseconds
	version uint64 // of its set
	door    uint16 // the port of loopback at which it listens beside its own; 0: none
}

const metaSize = 1 + 8 + 8 + 2

func (m meta) encode() []byte {
	b := append(make([]byte, 0, metaSize), format)
	b = binary.BigEndian.AppendUint64(b, m.start)
	b = binary.BigEndian.AppendUint64(b, m.version)
	return binary.BigEndian.AppendUint16(b, m.door)
}

func decodeMeta(b []byte) (meta, error) {
	if len(b) != metaSize || b[0] != format {
		return meta{}, errors.New("it is no member of a registry, or of another version")
	}
	m := meta{start: binary.BigEndian.Uint64(b[1:]), version: binary.BigEndian.Uint64(b[9:]), door: binary.BigEndian.Uint16(b[17:])}
	if m.version > maxVersion {
		return meta{}, errors.New("its version is out of range")
	}
	return m, nil
}

// nameOf is the name of a member that was started at an address. Nobody else has it: an address has one member at a time.
func nameOf(addr string, start uint64) string { return fmt.Sprintf("%s#%x", addr, start) }

// entry is a node of a set.
type entry struct {
	since int64 // when its owner registered it first, Unix nanoseconds
	node  registry.Node
	size  int // of its record
}

type wireEntry struct {
	Since int64           `json:"since"`
	Node  json.RawMessage `json:"node"`
}

// MarshalJSON writes what UnmarshalJSON reads.
func (e entry) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Since int64         `json:"since"`
		Node  registry.Node `json:"node"`
	}{e.since, e.node})
}

// UnmarshalJSON reads an entry, and refuses a node that no registry would take.
func (e *entry) UnmarshalJSON(b []byte) error {
	var w wireEntry
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	if len(w.Node) > registry.MaxRecord {
		return fmt.Errorf("%w: a record of %d bytes, limit %d", registry.ErrInvalid, len(w.Node), registry.MaxRecord)
	}
	e.since, e.size, e.node = w.Since, len(w.Node), registry.Node{}
	if err := json.Unmarshal(w.Node, &e.node); err != nil {
		return err
	}
	return registry.Validate(e.node)
}

// newEntry validates a node. The error wraps registry.ErrInvalid.
func newEntry(n registry.Node, since int64) (entry, error) {
	record, err := leases.Encode(n)
	if err != nil {
		return entry{}, err
	}
	return entry{since: since, node: n.Clone(), size: len(record)}, nil
}

// change leads from any version of a set that is not before Prev to Version.
type change struct {
	Owner   string   `json:"owner"`
	Prev    uint64   `json:"prev"`
	Version uint64   `json:"version"`
	Put     []entry  `json:"put,omitempty"`
	Gone    []string `json:"gone,omitempty"`
}

// want asks the member that it is sent to for its set.
type want struct {
	From  string `json:"from"`
	Nonce uint64 `json:"nonce"` // comes back with the set; not 0
}

// set is all nodes of a member.
type set struct {
	Owner   string  `json:"owner"`
	Version uint64  `json:"version"`
	Nonce   uint64  `json:"nonce,omitempty"`
	Nodes   []entry `json:"nodes"`
}

func (s set) size() (bytes int) {
	for _, e := range s.Nodes {
		bytes += e.size
	}
	return bytes
}

// encode gives a message. What is sent is made of validated nodes, which JSON can write.
func encode(kind byte, v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("gossip: " + err.Error())
	}
	return append([]byte{kind}, b...)
}

// decode reads a message: a change, a want or a set that is as it should be in itself.
func decode(b []byte) (any, error) {
	switch {
	case len(b) == 0:
		return nil, errors.New("an empty message")
	case len(b) > maxMessage:
		return nil, fmt.Errorf("a message of %d bytes, limit %d", len(b), maxMessage)
	case b[0] != kindSet && len(b) > maxPacket:
		return nil, fmt.Errorf("a message of the kind %q of %d bytes, limit %d", b[0], len(b), maxPacket)
	}
	switch b[0] {
	case kindChange:
		var c change
		if err := json.Unmarshal(b[1:], &c); err != nil {
			return nil, fmt.Errorf("a change: %w", err)
		}
		return c, c.check()
	case kindWant:
		var w want
		if err := json.Unmarshal(b[1:], &w); err != nil {
			return nil, fmt.Errorf("a question: %w", err)
		}
		return w, nil
	case kindSet:
		return decodeSet(b[1:])
	}
	return nil, fmt.Errorf("a message of an unknown kind, %#x", b[0])
}

func decodeSet(b []byte) (set, error) {
	var s set
	if err := json.Unmarshal(b, &s); err != nil {
		return set{}, fmt.Errorf("a set: %w", err)
	}
	return s, s.check()
}

// decodeState reads what two members that meet send each other. Sets that are not as they should be are left out, and told
// of by the error.
func decodeState(b []byte) (sets []set, err error) {
	if len(b) == 0 || b[0] != kindState || len(b) > maxMessage {
		return nil, fmt.Errorf("%d bytes that are no state", len(b))
	}
	var raw []json.RawMessage
	if err := json.Unmarshal(b[1:], &raw); err != nil {
		return nil, fmt.Errorf("a state: %w", err)
	}
	for _, r := range raw {
		s, bad := decodeSet(r)
		if bad != nil {
			err = bad // one is enough to be told
			continue
		}
		sets = append(sets, s)
	}
	return sets, err
}

func (s set) check() error {
	if s.Version > maxVersion {
		return fmt.Errorf("a set of %q: its version is out of range", s.Owner)
	}
	if len(s.Nodes) > maxNodes || s.size() > maxSet {
		return fmt.Errorf("a set of %q: %d nodes with %d bytes, limits %d and %d", s.Owner, len(s.Nodes), s.size(), maxNodes, maxSet)
	}
	return unique("a set of "+s.Owner, s.Nodes, nil)
}

func (c change) check() error {
	if c.Prev >= c.Version || c.Version > maxVersion {
		return fmt.Errorf("a change of %q: from version %d to %d", c.Owner, c.Prev, c.Version)
	}
	return unique("a change of "+c.Owner, c.Put, c.Gone)
}

func unique(what string, put []entry, gone []string) error {
	ids := make(map[string]struct{}, len(put)+len(gone))
	for i := range put {
		ids[put[i].node.ID] = struct{}{}
	}
	for _, id := range gone {
		ids[id] = struct{}{}
	}
	if len(ids) < len(put)+len(gone) {
		return fmt.Errorf("%q: an id stands twice", what)
	}
	return nil
}
