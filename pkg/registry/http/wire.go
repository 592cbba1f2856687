package http

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
)

// The protocol's names. doc.go says what they mean.
const (
	nodesPath    = "/v1/nodes"
	servicesPath = "/v1/services"
	watchPath    = "/v1/watch"
	healthPath   = "/healthz"
	readyPath    = "/readyz"
	metricsPath  = "/metrics"

	leaseHeader = "Micro-Lease"
	nobody      = "none" // owner=none
	jsonType    = "application/json"
	linesType   = "application/jsonl"
	errorID     = "micro.registry"

	heartbeat  = 10 * time.Second // at most between two lines of a watch
	watchDead  = 3 * heartbeat    // without a line
	minSecret  = 32               // hexadecimal digits: 128 bits
	maxSecret  = 128
	epochBytes = 16
)

// nodePath is where a node stands. Its id is one segment of the path, whatever it holds.
func nodePath(id string) string { return nodesPath + "/" + url.PathEscape(id) }

// set is a set of nodes as answers and watches carry it, or what changed in one. Nodes, Put and Gone are nil in a
// heartbeat.
type set struct {
	Epoch    string           `json:"epoch"`
	Revision uint64           `json:"revision"`
	Starting bool             `json:"starting,omitempty"`
	Nodes    *[]registry.Node `json:"nodes,omitempty"`
	Put      []registry.Node  `json:"put,omitempty"`
	Gone     []string         `json:"gone,omitempty"`
	skipped  []error          // records that parseSet left out
}

// lease is the answer to a registration.
type lease struct {
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

var errNoAnswer = errors.New("the answer is none of a registry server")

// parseSet reads a set. Records that are no valid nodes are left out, and told of in skipped; a set without an epoch is
// none of ours.
func parseSet(data []byte) (set, error) {
	var in struct {
		Epoch    string             `json:"epoch"`
		Revision uint64             `json:"revision"`
		Starting bool               `json:"starting"`
		Nodes    *[]json.RawMessage `json:"nodes"`
		Put      []json.RawMessage  `json:"put"`
		Gone     []string           `json:"gone"`
	}
	if err := json.Unmarshal(data, &in); err != nil || !validEpoch(in.Epoch) {
		return set{}, errNoAnswer
	}
	s := set{Epoch: in.Epoch, Revision: in.Revision, Starting: in.Starting, Gone: in.Gone}
	s.Put = s.parseNodes(in.Put)
	if in.Nodes != nil {
		nodes := s.parseNodes(*in.Nodes)
		s.Nodes = &nodes
	}
	return s, nil
}

// parseNodes gives the valid nodes among records, sorted and one for each id.
func (s *set) parseNodes(records []json.RawMessage) []registry.Node {
	nodes := make([]registry.Node, 0, len(records))
	seen := make(map[string]bool, len(records))
	for _, raw := range records {
		n, err := parseNode(raw)
		if err == nil && seen[n.ID] {
			err = fmt.Errorf("%w: id %s stands twice", registry.ErrInvalid, n.ID)
		}
		if err != nil {
			s.skipped = append(s.skipped, err)
			continue
		}
		seen[n.ID] = true
		nodes = append(nodes, n)
	}
	registry.Sort(nodes)
	return nodes
}

// parseNode reads and validates a record.
func parseNode(data []byte) (registry.Node, error) {
	n, err := decodeNode(data)
	if err != nil {
		return registry.Node{}, err
	}
	return n, registry.Validate(n)
}

// decodeNode reads a record that may lack its id.
func decodeNode(data []byte) (registry.Node, error) {
	var n registry.Node
	if len(data) > registry.MaxRecord {
		return n, fmt.Errorf("%w: the record has %d bytes, limit %d", registry.ErrInvalid, len(data), registry.MaxRecord)
	}
	if err := json.Unmarshal(data, &n); err != nil {
		return registry.Node{}, fmt.Errorf("%w: the record is not a node: %w", registry.ErrInvalid, err)
	}
	return n, nil
}

func parseLease(data []byte) (lease, time.Duration, error) {
	var l lease
	if err := json.Unmarshal(data, &l); err != nil || !validEpoch(l.Epoch) {
		return lease{}, 0, errNoAnswer
	}
	ttl, err := time.ParseDuration(l.TTL)
	if err != nil || ttl <= 0 {
		return lease{}, 0, errNoAnswer
	}
	return l, ttl, nil
}

func parseHealth(data []byte) (Health, error) {
	var h Health
	if err := json.Unmarshal(data, &h); err != nil || !validEpoch(h.Epoch) {
		return Health{}, errNoAnswer
	}
	return h, nil
}

func validEpoch(s string) bool { return len(s) == 2*epochBytes && hexadecimal(s) }

func validSecret(s string) bool {
	return len(s) >= minSecret && len(s) <= maxSecret && hexadecimal(s)
}

func hexadecimal(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
			return false
		}
	}
	return true
}

// errTooLong: an answer passes its limit.
var errTooLong = errors.New("the answer is too long")

// readAll reads r to its end, limit bytes at most.
func readAll(r io.Reader, limit int64) ([]byte, error) {
	var b bytes.Buffer
	n, err := b.ReadFrom(io.LimitReader(r, limit+1))
	switch {
	case err != nil:
		return nil, err
	case n > limit:
		return nil, fmt.Errorf("%w: over %d bytes", errTooLong, limit)
	}
	return b.Bytes(), nil
}
