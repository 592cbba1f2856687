// Package wire is the protocol of the HTTP registry as both sides read and write it: names, sets, answers. The doc of registry/http says what
// they mean.
package wire

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
)

// The protocol's names.
const (
	NodesPath    = "/v1/nodes"
	ServicesPath = "/v1/services"
	WatchPath    = "/v1/watch"
	HealthPath   = "/healthz"
	ReadyPath    = "/readyz"
	MetricsPath  = "/metrics"

	LeaseHeader = "Micro-Lease"
	Nobody      = "none" // owner=none
	JSONType    = "application/json"
	LinesType   = "application/jsonl"
	ErrorID     = "micro.registry"

	Heartbeat  = 10 * time.Second // at most between two lines of a watch
	WatchDead  = 3 * Heartbeat    // without a line
	MinSecret  = 32               // hexadecimal digits: 128 bits
	MaxSecret  = 128
	EpochBytes = 16
)

// NodePath is where a node stands. Its id is one segment of the path, whatever it holds.
func NodePath(id string) string { return NodesPath + "/" + url.PathEscape(id) }

// Set is a set of nodes as answers and watches carry it, or what changed in one. Nodes, Put and Gone are nil in a
// heartbeat.
type Set struct {
	Epoch    string           `json:"epoch"`
	Revision uint64           `json:"revision"`
	Starting bool             `json:"starting,omitempty"`
	Nodes    *[]registry.Node `json:"nodes,omitempty"`
	Put      []registry.Node  `json:"put,omitempty"`
	Gone     []string         `json:"gone,omitempty"`
	Skipped  []error          `json:"-"` // records that ParseSet left out
}

// Lease is the answer to a registration.
type Lease struct {
	Epoch    string `json:"epoch"`
	Revision uint64 `json:"revision"`
	TTL      string `json:"ttl"`
	Lease    string `json:"lease,omitempty"`
}

// Health is the answer of /healthz.
type Health struct {
	// Status is "ok"; "starting": owners are expected to put their nodes again; "full": the disk has no room, and no new nodes are taken;
	// "failed": the disk failed, and the server stops; "away": the registry behind the server is, and what was known of it is served.
	Status   string `json:"status"`
	Epoch    string `json:"epoch"`
	Revision uint64 `json:"revision"`
	Nodes    int    `json:"nodes"`
	Watches  int    `json:"watches"`
	Uptime   string `json:"uptime"` // a Go duration
}

// ErrNoAnswer: what came is no answer of this protocol.
var ErrNoAnswer = errors.New("the answer is none of a registry server")

// ParseSet reads a set. Records that are no valid nodes are left out, and told of in Skipped; a set without an epoch is
// none of ours.
func ParseSet(data []byte) (Set, error) {
	var in struct {
		Epoch    string             `json:"epoch"`
		Revision uint64             `json:"revision"`
		Starting bool               `json:"starting"`
		Nodes    *[]json.RawMessage `json:"nodes"`
		Put      []json.RawMessage  `json:"put"`
		Gone     []string           `json:"gone"`
	}
	if err := json.Unmarshal(data, &in); err != nil || !ValidEpoch(in.Epoch) {
		return Set{}, ErrNoAnswer
	}
	s := Set{Epoch: in.Epoch, Revision: in.Revision, Starting: in.Starting, Gone: in.Gone}
	s.Put = s.parseNodes(in.Put)
	if in.Nodes != nil {
		nodes := s.parseNodes(*in.Nodes)
		s.Nodes = &nodes
	}
	return s, nil
}

// parseNodes gives the valid nodes among records, sorted and one for each id.
func (s *Set) parseNodes(records []json.RawMessage) []registry.Node {
	nodes := make([]registry.Node, 0, len(records))
	seen := make(map[string]bool, len(records))
	for _, raw := range records {
		n, err := ParseNode(raw)
		if err == nil && seen[n.ID] {
			err = fmt.Errorf("%w: id %s stands twice", registry.ErrInvalid, n.ID)
		}
		if err != nil {
			s.Skipped = append(s.Skipped, err)
			continue
		}
		seen[n.ID] = true
		nodes = append(nodes, n)
	}
	registry.Sort(nodes)
	return nodes
}

// ParseNode reads and validates a record.
func ParseNode(data []byte) (registry.Node, error) {
	n, err := DecodeNode(data)
	if err != nil {
		return registry.Node{}, err
	}
	return n, registry.Validate(n)
}

// DecodeNode reads a record that may lack its id.
func DecodeNode(data []byte) (registry.Node, error) {
	var n registry.Node
	if len(data) > registry.MaxRecord {
		return n, fmt.Errorf("%w: the record has %d bytes, limit %d", registry.ErrInvalid, len(data), registry.MaxRecord)
	}
	if err := json.Unmarshal(data, &n); err != nil {
		return registry.Node{}, fmt.Errorf("%w: the record is not a node: %w", registry.ErrInvalid, err)
	}
	return n, nil
}

// ParseLease reads the answer to a registration, and the ttl that it gives.
func ParseLease(data []byte) (Lease, time.Duration, error) {
	var l Lease
	if err := json.Unmarshal(data, &l); err != nil || !ValidEpoch(l.Epoch) {
		return Lease{}, 0, ErrNoAnswer
	}
	ttl, err := time.ParseDuration(l.TTL)
	if err != nil || ttl <= 0 {
		return Lease{}, 0, ErrNoAnswer
	}
	return l, ttl, nil
}

// ParseHealth reads the answer of /healthz.
func ParseHealth(data []byte) (Health, error) {
	var h Health
	if err := json.Unmarshal(data, &h); err != nil || !ValidEpoch(h.Epoch) {
		return Health{}, ErrNoAnswer
	}
	return h, nil
}

// ValidEpoch reports whether an epoch is one.
func ValidEpoch(s string) bool { return len(s) == 2*EpochBytes && hexadecimal(s) }

// ValidSecret reports whether a lease's secret is one.
func ValidSecret(s string) bool {
	return len(s) >= MinSecret && len(s) <= MaxSecret && hexadecimal(s)
}

func hexadecimal(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
			return false
		}
	}
	return true
}

// Random gives bytes of a secure random source in hexadecimal.
func Random(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // it gives no error, and ends the program where there is no randomness
	return hex.EncodeToString(b)
}

// ErrTooLong: an answer passes its limit.
var ErrTooLong = errors.New("the answer is too long")

// ReadAll reads r to its end, limit bytes at most.
func ReadAll(r io.Reader, limit int64) ([]byte, error) {
	var b bytes.Buffer
	n, err := b.ReadFrom(io.LimitReader(r, limit+1))
	switch {
	case err != nil:
		return nil, err
	case n > limit:
		return nil, fmt.Errorf("%w: over %d bytes", ErrTooLong, limit)
	}
	return b.Bytes(), nil
}
