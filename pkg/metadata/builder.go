package metadata

import (
	"encoding/binary"
	"fmt"
	"iter"
	"strings"
)

// Builder gathers pairs in storage that it uses again, for a header that is made often. The zero Builder is ready. It is
// not for concurrent use.
type Builder struct {
	md    MD
	pairs int
	keys  uint64 // a bit for each key that was set, by mark: most keys are known to be new without a look at the others
}

// Reset empties b. What MD gave before is not valid any more.
func (b *Builder) Reset() { *b = Builder{md: b.md[:0]} }

// MD gives what was gathered, without copying: it is valid until b is next changed, and is not to be changed.
func (b *Builder) MD() MD { return b.md }

// Len counts the pairs.
func (b *Builder) Len() int { return b.pairs }

// Set sets key to value, with the rules and the errors of [MD.Set]; after an error the key's earlier pair may be gone.
func (b *Builder) Set(key, value string) error {
	key = strings.ToLower(key)
	if err := check(key, value); err != nil {
		return err
	}
	if err := room(b, key, len(value)); err != nil {
		return err
	}
	b.md = append(b.md, byte(len(key)))
	b.md = append(b.md, key...)
	b.md = binary.BigEndian.AppendUint16(b.md, uint16(len(value)))
	b.md = append(b.md, value...)
	return nil
}

// Merge sets each pair of md, but for keys that drop reports. Nothing is taken on trust: the error wraps ErrInvalid where
// md, which any []byte may be, is cut off, holds a pair that cannot be carried, or is too much; a part is set then.
func (b *Builder) Merge(md MD, drop func(key []byte) bool) error {
	for rest := md; len(rest) > 0; {
		key, value, next, ok := rest.next()
		if !ok {
			return fmt.Errorf("%w: a pair is cut off %d bytes before the end", ErrInvalid, len(rest))
		}
		pair := rest[:len(rest)-len(next)]
		rest = next
		if drop(key) {
			continue
		}
		if err := check(key, value); err != nil {
			return err
		}
		if err := room(b, key, len(value)); err != nil {
			return err
		}
		b.md = append(b.md, pair...)
	}
	return nil
}

// room takes an earlier pair of the key away, and sees that there is place for one with a value of that length.
func room[T string | []byte](b *Builder, key T, value int) error {
	if bit := mark(key); b.keys&bit != 0 {
		remove(b, key)
	} else {
		b.keys |= bit
	}
	if len(b.md)+1+len(key)+2+value > MaxSize {
		return fmt.Errorf("%w: %q would pass %d bytes in all", ErrInvalid, string(key), MaxSize)
	}
	if b.pairs >= MaxPairs {
		return fmt.Errorf("%w: %q would be pair %d, limit %d", ErrInvalid, string(key), MaxPairs+1, MaxPairs)
	}
	b.pairs++
	return nil
}

// mark gives one of 64 bits, another one for most keys that stand together.
func mark[T string | []byte](key T) uint64 {
	n := len(key)
	return 1 << ((uint(n)*5 + uint(key[0]) + uint(key[n/2])*11 + uint(key[n-1])*23) % 64)
}

func remove[T string | []byte](b *Builder, key T) {
	for rest := b.md; ; {
		k, _, next, ok := rest.next()
		if !ok {
			return
		}
		if string(k) == string(key) {
			b.pairs--
			b.md = append(b.md[:len(b.md)-len(rest)], next...)
			return
		}
		rest = next
	}
}

// Pairs yields the pairs as [MD.All] does, without copying: the bytes belong to md.
func (md MD) Pairs() iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		for rest := md; ; {
			k, v, next, ok := rest.next()
			if !ok || !yield(k, v) {
				return
			}
			rest = next
		}
	}
}
