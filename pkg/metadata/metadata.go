// Package metadata carries the headers of a call: short pairs of text beside its body.
//
// What came in and what goes out have different places in a context, and one never becomes the other by itself:
// a caller's credentials do not travel on unless a handler says so.
package metadata

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
)

// The limits of metadata. Beyond them [MD.Set] and [Parse] refuse.
const (
	MaxPairs = 64       // pairs in one MD
	MaxKey   = 128      // bytes of a key
	MaxValue = 4 << 10  // bytes of a value
	MaxSize  = 16 << 10 // bytes of an encoded MD
)

// ErrInvalid is wrapped by the errors of pairs that cannot be carried.
var ErrInvalid = errors.New("metadata: invalid")

// MD is a list of pairs in one flat encoded section, which is read and sent without building a map. Keys are lower
// case; a key stands once. The zero MD is empty and ready. An MD is a slice: a copy shares its bytes, and Set on
// one of them does not change the other's pairs. It may be read by several goroutines at once.
//
// The encoding of a pair is: one byte length of the key, the key, two bytes length of the value (big endian), the value.
type MD []byte

// Of makes an MD of pairs: key, value, key, value. It panics on an odd count or an invalid pair, which is a
// programming error; use Set for pairs that come from outside.
func Of(pairs ...string) MD {
	if len(pairs)%2 != 0 {
		panic("metadata: Of wants pairs")
	}
	var b Builder
	for i := 0; i < len(pairs); i += 2 {
		if err := b.Set(pairs[i], pairs[i+1]); err != nil {
			panic(err)
		}
	}
	return b.md.Clone()
}

// Parse checks that data is an encoded MD within the limits, in which no key stands twice, and gives it without copying.
func Parse(data []byte) (MD, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrInvalid, len(data), MaxSize)
	}
	md, n := MD(data), 0
	var keys uint64 // the marks of those that were seen
	for rest := md; len(rest) > 0; n++ {
		key, value, next, ok := rest.next()
		if !ok {
			return nil, fmt.Errorf("%w: pair %d is cut off", ErrInvalid, n)
		}
		if n == MaxPairs {
			return nil, fmt.Errorf("%w: more than %d pairs", ErrInvalid, MaxPairs)
		}
		if err := check(key, value); err != nil {
			return nil, err
		}
		bit := mark(key)
		if before := md[:len(md)-len(rest)]; keys&bit != 0 && before.has(key) {
			return nil, fmt.Errorf("%w: key %q stands twice", ErrInvalid, string(key))
		}
		keys |= bit
		rest = next
	}
	return md, nil
}

// has reports whether md has the key.
func (md MD) has(key []byte) bool {
	for k := range md.Pairs() {
		if string(k) == string(key) {
			return true
		}
	}
	return false
}

// next splits the first pair off.
func (md MD) next() (key, value []byte, rest MD, ok bool) {
	if len(md) < 1 {
		return nil, nil, nil, false
	}
	k := int(md[0])
	if len(md) < 1+k+2 {
		return nil, nil, nil, false
	}
	v := int(binary.BigEndian.Uint16(md[1+k:]))
	if len(md) < 1+k+2+v {
		return nil, nil, nil, false
	}
	return md[1 : 1+k], md[1+k+2 : 1+k+2+v], md[1+k+2+v:], true
}

func check[T string | []byte](key, value T) error {
	if len(key) == 0 || len(key) > MaxKey {
		return fmt.Errorf("%w: key of %d bytes, want 1 to %d", ErrInvalid, len(key), MaxKey)
	}
	for i := range len(key) {
		if c := key[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return fmt.Errorf("%w: key %q holds more than a-z, 0-9, '-', '_' and '.'", ErrInvalid, string(key))
		}
	}
	if len(value) > MaxValue {
		return fmt.Errorf("%w: value of %q has %d bytes, limit %d", ErrInvalid, string(key), len(value), MaxValue)
	}
	if breaks(value) {
		return fmt.Errorf("%w: value of %q holds a line break or NUL", ErrInvalid, string(key))
	}
	return nil
}

// breaks reports whether a value holds a byte that none may. Calls that search many bytes at a time pay for long ones alone.
func breaks[T string | []byte](value T) bool {
	if len(value) > 32 {
		switch v := any(value).(type) {
		case string:
			return strings.IndexByte(v, 0) >= 0 || strings.IndexByte(v, '\r') >= 0 || strings.IndexByte(v, '\n') >= 0
		case []byte:
			return bytes.IndexByte(v, 0) >= 0 || bytes.IndexByte(v, '\r') >= 0 || bytes.IndexByte(v, '\n') >= 0
		}
	}
	for i := range len(value) {
		if c := value[i]; c == 0 || c == '\r' || c == '\n' {
			return true
		}
	}
	return false
}

// Bytes gives key's value without copying, and whether it is there. key must be lower case. The bytes belong to md.
func (md MD) Bytes(key string) ([]byte, bool) {
	for rest := md; ; {
		k, v, next, ok := rest.next()
		if !ok {
			return nil, false
		}
		if string(k) == key {
			return v, true
		}
		rest = next
	}
}

// Get gives key's value, "" where it is not there. Case does not matter.
func (md MD) Get(key string) string {
	v, _ := md.Bytes(strings.ToLower(key))
	return string(v)
}

// All yields the pairs in the order in which they were set.
func (md MD) All() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for rest := md; ; {
			k, v, next, ok := rest.next()
			if !ok || !yield(string(k), string(v)) {
				return
			}
			rest = next
		}
	}
}

// Len counts the pairs.
func (md MD) Len() int {
	n := 0
	for range md.Pairs() {
		n++
	}
	return n
}

// Set gives md with key set to value, in storage of its own; the key is lower-cased. The error wraps ErrInvalid where the
// pair cannot be carried or md would pass a limit; md is then as it was.
func (md MD) Set(key, value string) (MD, error) {
	key = strings.ToLower(key)
	if err := check(key, value); err != nil {
		return md, err
	}
	from, to, others := md.find(key)
	size := len(md) - (to - from) + 1 + len(key) + 2 + len(value)
	if size > MaxSize {
		return md, fmt.Errorf("%w: %q would pass %d bytes in all", ErrInvalid, key, MaxSize)
	}
	if others >= MaxPairs {
		return md, fmt.Errorf("%w: %q would be pair %d, limit %d", ErrInvalid, key, MaxPairs+1, MaxPairs)
	}
	out := make(MD, 0, size)
	out = append(append(out, md[:from]...), md[to:]...)
	out = append(append(out, byte(len(key))), key...)
	return append(binary.BigEndian.AppendUint16(out, uint16(len(value))), value...), nil
}

// find gives the place of key's pair, none at the end where there is no such pair, and counts the others.
func (md MD) find(key string) (from, to, others int) {
	from, to = len(md), len(md)
	for at := 0; at < len(md); {
		k, _, next, ok := md[at:].next()
		if !ok {
			break
		}
		end := len(md) - len(next)
		if string(k) == key {
			from, to = at, end
		} else {
			others++
		}
		at = end
	}
	return from, to, others
}

// Without gives md less the keys, which must be lower case. It is md itself where it has none of them.
func (md MD) Without(keys ...string) MD {
	for _, k := range keys {
		if _, ok := md.Bytes(k); ok {
			return md.Except(func(key []byte) bool { return slices.Contains(keys, string(key)) })
		}
	}
	return md
}

// Except gives a copy of md, which shares nothing with it, less the keys that drop reports.
func (md MD) Except(drop func(key []byte) bool) MD {
	var out MD
	for rest := md; ; {
		key, _, next, ok := rest.next()
		if !ok {
			return out
		}
		if !drop(key) {
			if out == nil {
				out = make(MD, 0, len(rest)) // what is left is not more
			}
			out = append(out, rest[:len(rest)-len(next)]...)
		}
		rest = next
	}
}

// Clone gives a copy that shares nothing with md.
func (md MD) Clone() MD {
	if len(md) == 0 {
		return nil
	}
	return append(MD(nil), md...)
}

type inKey struct{}
type outKey struct{}

// WithIncoming gives a context that carries md as what came with the call. Servers call it; a test of a handler may.
func WithIncoming(ctx context.Context, md MD) context.Context {
	return context.WithValue(ctx, inKey{}, md)
}

// Incoming gives what came with the call that ctx belongs to; empty where ctx belongs to none. It is shared with whoever
// else asks, and may be kept.
func Incoming(ctx context.Context) MD {
	switch md := ctx.Value(inKey{}).(type) {
	case MD:
		return md
	case *MD:
		return *md
	}
	return nil
}

// IsIncoming reports whether key is the one by which Incoming asks a context. A context of another package that answers
// it with a *MD, which nobody changes, carries what came with a call at no allocation.
func IsIncoming(key any) bool {
	_, ok := key.(inKey)
	return ok
}

// WithOutgoing gives a context whose calls carry md, in place of what earlier contexts set.
func WithOutgoing(ctx context.Context, md MD) context.Context {
	return context.WithValue(ctx, outKey{}, md)
}

// Outgoing gives what calls made with ctx carry.
func Outgoing(ctx context.Context) MD {
	md, _ := ctx.Value(outKey{}).(MD)
	return md
}

// Append gives a context whose calls carry key=value beside what ctx's calls carry. The error wraps ErrInvalid.
func Append(ctx context.Context, key, value string) (context.Context, error) {
	md, err := Outgoing(ctx).Set(key, value)
	if err != nil {
		return ctx, err
	}
	return WithOutgoing(ctx, md), nil
}
