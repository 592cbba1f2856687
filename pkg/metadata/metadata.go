// Package metadata carries the headers of a call: short pairs of text beside its body.
//
// What came in and what goes out have different places in a context, and one never becomes the other by itself:
// a caller's credentials do not travel on unless a handler says so.
package metadata

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
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
	var md MD
	for i := 0; i < len(pairs); i += 2 {
		var err error
		if md, err = md.Set(pairs[i], pairs[i+1]); err != nil {
			panic(err)
		}
	}
	return md
}

// Parse checks that data is an encoded MD within the limits and gives it without copying.
func Parse(data []byte) (MD, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrInvalid, len(data), MaxSize)
	}
	md, n := MD(data), 0
	for rest := md; len(rest) > 0; n++ {
		key, value, next, ok := rest.next()
		if !ok {
			return nil, fmt.Errorf("%w: pair %d is cut off", ErrInvalid, n)
		}
		if err := check(key, value); err != nil {
			return nil, err
		}
		rest = next
	}
	if n > MaxPairs {
		return nil, fmt.Errorf("%w: %d pairs, limit %d", ErrInvalid, n, MaxPairs)
	}
	return md, nil
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
	for i := range len(value) {
		if c := value[i]; c == 0 || c == '\r' || c == '\n' {
			return fmt.Errorf("%w: value of %q holds a line break or NUL", ErrInvalid, string(key))
		}
	}
	return nil
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
	for range md.All() {
		n++
	}
	return n
}

// Set gives md with key set to value; the key is lower-cased. The error wraps ErrInvalid where the pair cannot be
// carried or md would pass a limit; md is then as it was. Like append, Set may reuse md's storage: use the result.
func (md MD) Set(key, value string) (MD, error) {
	key = strings.ToLower(key)
	if err := check(key, value); err != nil {
		return md, err
	}
	out := md.without(key)
	if len(out)+1+len(key)+2+len(value) > MaxSize {
		return md, fmt.Errorf("%w: %q would pass %d bytes in all", ErrInvalid, key, MaxSize)
	}
	if out.Len() >= MaxPairs {
		return md, fmt.Errorf("%w: %q would be pair %d, limit %d", ErrInvalid, key, MaxPairs+1, MaxPairs)
	}
	return out.append(key, value), nil
}

// append adds a pair that was checked. The capacity is cut first, so that two MDs that share bytes stay apart.
func (md MD) append(key, value string) MD {
	md = md[:len(md):len(md)]
	md = append(md, byte(len(key)))
	md = append(md, key...)
	md = binary.BigEndian.AppendUint16(md, uint16(len(value)))
	return append(md, value...)
}

// without gives md less key; md itself where it has no such key.
func (md MD) without(key string) MD {
	if _, ok := md.Bytes(key); !ok {
		return md
	}
	out := make(MD, 0, len(md))
	for k, v := range md.All() {
		if k != key {
			out = out.append(k, v)
		}
	}
	return out
}

// Without gives md less the keys, which must be lower case.
func (md MD) Without(keys ...string) MD {
	for _, k := range keys {
		md = md.without(k)
	}
	return md
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

// Incoming gives what came with the call that ctx belongs to; empty where ctx belongs to none.
func Incoming(ctx context.Context) MD {
	md, _ := ctx.Value(inKey{}).(MD)
	return md
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
	md, err := Outgoing(ctx).Clone().Set(key, value)
	if err != nil {
		return ctx, err
	}
	return WithOutgoing(ctx, md), nil
}
