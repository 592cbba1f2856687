package registry

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The limits of a node's record. They hold at registration, and for every record that a backend reads.
const (
	MaxName      = 128      // bytes of a service's name, a node's id, a version
	MaxAddress   = 256      // bytes of an address
	MaxMetadata  = 64       // pairs of metadata
	MaxMetaKey   = 128      // bytes of a metadata key
	MaxMetaValue = 4 << 10  // bytes of a metadata value
	MaxRecord    = 64 << 10 // bytes of an encoded record
	MaxEndpoints = 2000     // endpoints of a node
	MaxValues    = 64 << 10 // fields of all types of a node's endpoints
	MaxDepth     = 32       // fields within fields
)

// ValidName reports whether name can be a service's name: letters, digits, '.', '_' and '-', with a letter or a digit at
// both ends, at most MaxName bytes, and no part between dots empty.
func ValidName(name string) bool { return validName(name, MaxName, "._-") }

// validName takes letters, digits, and between them the marks.
func validName(name string, limit int, marks string) bool {
	if name == "" || len(name) > limit || strings.Contains(name, "..") {
		return false
	}
	for i := range len(name) {
		c := name[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		inner := i > 0 && i < len(name)-1
		if !alnum && (!inner || strings.IndexByte(marks, c) < 0) {
			return false
		}
	}
	return true
}

// Validate checks that n can be announced. The error wraps ErrInvalid and names the field. Backends call it in
// Register, and for each record that they read from elsewhere.
func Validate(n Node) error {
	switch {
	case !ValidName(n.Service):
		return fmt.Errorf("%w: service name %q: want letters, digits, '.', '_' or '-', %d bytes at most", ErrInvalid, clip(n.Service), MaxName)
	case !validID(n.ID):
		return fmt.Errorf("%w: node id %q: want letters, digits, '.', '_', '-' or '/', %d bytes at most", ErrInvalid, clip(n.ID), 2*MaxName)
	case len(n.Version) > MaxName || unprintable(n.Version):
		return fmt.Errorf("%w: version %q: want printable text, %d bytes at most", ErrInvalid, clip(n.Version), MaxName)
	case n.Address == "" || len(n.Address) > MaxAddress || unprintable(n.Address) || strings.ContainsAny(n.Address, " /\\@"):
		return fmt.Errorf("%w: address %q: want host:port, or a name without spaces, '/', '\\' and '@'", ErrInvalid, clip(n.Address))
	case len(n.Metadata) > MaxMetadata:
		return fmt.Errorf("%w: %d pairs of metadata, limit %d", ErrInvalid, len(n.Metadata), MaxMetadata)
	case len(n.Endpoints) > MaxEndpoints:
		return fmt.Errorf("%w: %d endpoints, limit %d", ErrInvalid, len(n.Endpoints), MaxEndpoints)
	}
	size := 0
	for k, v := range n.Metadata {
		size += len(k) + len(v)
		if k == "" || len(k) > MaxMetaKey || len(v) > MaxMetaValue || unprintable(k) || unprintable(v) {
			return fmt.Errorf("%w: metadata %q: want printable text, key at most %d and value at most %d bytes", ErrInvalid, clip(k), MaxMetaKey, MaxMetaValue)
		}
	}
	if size > MaxRecord {
		return fmt.Errorf("%w: %d bytes of metadata, limit %d", ErrInvalid, size, MaxRecord)
	}
	return validEndpoints(n.Endpoints)
}

// validEndpoints checks what endpoints say of themselves: readers show it on terminals, and walk its types.
func validEndpoints(endpoints []Endpoint) error {
	left := MaxValues
	for _, e := range endpoints {
		if e.Name == "" || len(e.Name) > 2*MaxName || unprintable(e.Name) {
			return fmt.Errorf("%w: endpoint %q: want printable text, %d bytes at most", ErrInvalid, clip(e.Name), 2*MaxName)
		}
		if len(e.Metadata) > MaxMetadata {
			return fmt.Errorf("%w: endpoint %q: %d pairs of metadata, limit %d", ErrInvalid, clip(e.Name), len(e.Metadata), MaxMetadata)
		}
		for k, v := range e.Metadata {
			if k == "" || len(k) > MaxMetaKey || len(v) > MaxMetaValue || unreadable(k) || unreadable(v) {
				return fmt.Errorf("%w: endpoint %q: metadata %q: want text without control characters, key at most %d and value at most %d bytes",
					ErrInvalid, clip(e.Name), clip(k), MaxMetaKey, MaxMetaValue)
			}
		}
		for _, v := range []*Value{e.Request, e.Response} {
			if v == nil {
				continue
			}
			if err := validValue(v, MaxDepth, &left); err != nil {
				return fmt.Errorf("%w: endpoint %q: %s", ErrInvalid, clip(e.Name), err)
			}
		}
	}
	return nil
}

// validValue checks a type, whose fields take from left.
func validValue(v *Value, depth int, left *int) error {
	switch *left--; {
	case v == nil:
		return errors.New("a type with a field that is null")
	case *left < 0:
		return fmt.Errorf("its types and those before it have over %d fields", MaxValues)
	case depth == 0:
		return fmt.Errorf("a type of over %d levels", MaxDepth)
	case len(v.Name) > MaxMetaValue || len(v.Type) > MaxMetaValue || unreadable(v.Name) || unreadable(v.Type):
		return fmt.Errorf("a type's field %q: want text without control characters, %d bytes at most", clip(v.Name), MaxMetaValue)
	}
	for _, field := range v.Values {
		if err := validValue(field, depth-1, left); err != nil {
			return err
		}
	}
	return nil
}

// validID takes what ValidName takes and '/', up to twice the length: go-micro's ids are the service's name and a UUID,
// and its broker's are a topic, which is often a path, and a UUID.
func validID(id string) bool { return validName(id, 2*MaxName, "._-/") }

// ValidHostPort checks an address of a network transport: a host, and a port from 1 to 65535.
func ValidHostPort(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%w: address %q: %w", ErrInvalid, clip(address), err)
	}
	if p, err := strconv.ParseUint(port, 10, 16); err != nil || p == 0 || host == "" {
		return fmt.Errorf("%w: address %q: want host:port with a port from 1 to 65535", ErrInvalid, clip(address))
	}
	return nil
}

// unprintable reports whether s holds control characters or is no UTF-8: encoders of records would change such text.
func unprintable(s string) bool {
	return !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) })
}

// unreadable is unprintable, but for the white space of texts over several lines.
func unreadable(s string) bool {
	return !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r != '\n' && r != '\t' && !strconv.IsPrint(r) })
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}
