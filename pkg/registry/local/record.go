package local

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/cb02dfca/micro/pkg/registry"
)

// record is the content of a node's file: one JSON object.
type record struct {
	Version int `json:"version"` // recordVersion
	space
	PID       int           `json:"pid"`             // who holds the file
	Processes string        `json:"pidns,omitempty"` // the namespace of the number
	Node      registry.Node `json:"node"`
}

const recordVersion = 1

const (
	extension  = ".json"
	tempPrefix = "." // of files that are being made; nobody reads them
)

// encode gives the content of n's file. A record that would pass registry.MaxRecord goes without the endpoints.
func encode(n registry.Node, s space, pid int) ([]byte, error) {
	rec := record{Version: recordVersion, space: s, PID: pid, Processes: processSpace(), Node: n}
	data, err := json.Marshal(rec)
	if err == nil && len(data) > registry.MaxRecord {
		rec.Node.Endpoints = nil
		data, err = json.Marshal(rec)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", registry.ErrInvalid, err)
	}
	if len(data) > registry.MaxRecord {
		return nil, fmt.Errorf("%w: a record of %d bytes, limit %d: use less metadata", registry.ErrInvalid, len(data), registry.MaxRecord)
	}
	return data, nil
}

// serviceMark is what every record of a service's nodes contains: nothing, for all services.
func serviceMark(service string) []byte {
	if service == "" {
		return nil
	}
	return []byte(`"service":"` + service + `"`) // names need no escapes
}

// decode reads the content of the file of that name, as a process in s.
func decode(name string, data []byte, s space) (record, error) {
	var rec record
	if err := json.Unmarshal(data, &rec); err != nil {
		return record{}, err
	}
	switch {
	case rec.Version != recordVersion:
		return record{}, fmt.Errorf("a record of version %d, want %d", rec.Version, recordVersion)
	case rec.space != s:
		return record{}, fmt.Errorf("a record of another boot or network namespace under the name of one of this")
	}
	if err := registry.Validate(rec.Node); err != nil {
		return record{}, err
	}
	if fileName(rec.Node.ID, s) != name {
		return record{}, fmt.Errorf("the record of node %s under another name", rec.Node.ID)
	}
	return rec, nil
}

// fileName is the name of a node's file: something to recognise the id by, the id's hash, and the space's key. Ids are
// longer than names may be, and differ by case where file systems do not.
func fileName(id string, s space) string {
	return idPart(id) + "." + s.key() + extension
}

func idPart(id string) string {
	sum := sha256.Sum256([]byte(id))
	// "con.x" is a device on Windows.
	shown := strings.NewReplacer(".", "_", "/", "_").Replace(strings.ToLower(id[:min(len(id), 64)]))
	return shown + "@" + hex.EncodeToString(sum[:8])
}

// kind tells an entry by its name.
type kind int

const (
	foreign   kind = iota // not of this registry
	ours                  // a node of this space
	elsewhere             // a node of another space
	temporary             // a file being made, or left behind by who died making it
)

func kindOf(name, key string) kind {
	if strings.HasPrefix(name, tempPrefix) {
		return temporary
	}
	rest, ok := strings.CutSuffix(name, extension)
	if !ok {
		return foreign
	}
	at := strings.LastIndexByte(rest, '@')
	if at <= 0 || len(rest)-at != 1+16+1+8 || rest[at+17] != '.' || !isHex(rest[at+1:at+17]) || !isHex(rest[at+18:]) {
		return foreign
	}
	if rest[at+18:] != key {
		return elsewhere
	}
	return ours
}

func isHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }
