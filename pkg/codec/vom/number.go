package vom

import (
	"math"
	"math/bits"
)

// The control bytes in use. Bytes from 0x80 to 0xef start no number.
const (
	ctrlNil        = 0xe0 // an any or optional that is nil
	ctrlEnd        = 0xe1 // the end of a struct
	ctrlIncomplete = 0xe2 // before a type message that refers to later ones
)

// appendUint appends n: below 0x80 as one byte, else as a byte that holds 256 less the number of those that follow, big-endian.
func appendUint(dst []byte, n uint64) []byte {
	if n < 0x80 {
		return append(dst, byte(n))
	}
	size := (bits.Len64(n) + 7) / 8
	dst = append(dst, byte(-size))
	for shift := (size - 1) * 8; shift >= 0; shift -= 8 {
		dst = append(dst, byte(n>>shift))
	}
	return dst
}

// zigzag makes numbers near zero small.
func zigzag(n int64) uint64 { return uint64(n)<<1 ^ uint64(n>>63) }

// appendInt appends n in zigzag.
func appendInt(dst []byte, n int64) []byte { return appendUint(dst, zigzag(n)) }

// appendFloat appends f's eight bytes in the opposite order, so that round numbers are short.
func appendFloat(dst []byte, f float64) []byte {
	return appendUint(dst, bits.ReverseBytes64(math.Float64bits(f)))
}

func appendString(dst []byte, s string) []byte { return append(appendUint(dst, uint64(len(s))), s...) }
