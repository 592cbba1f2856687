package msgpack

import (
	"io"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/vmihailenco/msgpack/v5"
	"github.com/vmihailenco/msgpack/v5/msgpcode"

	"github.com/cb02dfca/micro/pkg/codec/internal/mapping"
)

// timestamp is the extension of times.
const timestamp = -1

// reader takes tokens from a slice. One is used again and again.
type reader struct {
	dec    *msgpack.Decoder // reads from this reader
	values *mapping.Decoder // as does this, by the former
	data   []byte
	off    int    // what of data was read
	open   []int  // what is still to come of each list and map that was begun
	key    []byte // of a map's key that is an integer
}

var _ mapping.Source = (*reader)(nil)

func newReader(t *mapping.Types, strict bool) *reader {
	r := new(reader)
	r.dec = msgpack.NewDecoder(r)
	r.values = mapping.NewDecoder(t, r, strict)
	return r
}

func (r *reader) Read(p []byte) (int, error) {
	if r.off >= len(r.data) {
		return 0, io.EOF
	}
	n := copy(p, r.data[r.off:])
	r.off += n
	return n, nil
}

func (r *reader) ReadByte() (byte, error) {
	if r.off >= len(r.data) {
		return 0, io.EOF
	}
	r.off++
	return r.data[r.off-1], nil
}

func (r *reader) UnreadByte() error {
	r.off--
	return nil
}

// fault is an error of the library, in the way of this house. The kind of a token was looked at before it is taken: what is left
// is that the data ends within it.
func fault(err error) error {
	if err != nil {
		return mapping.Errorf("unexpected end of the data")
	}
	return nil
}

// Next goes by the first byte, as the specification's overview of formats has it.
func (r *reader) Next() (mapping.Kind, error) {
	if r.off >= len(r.data) {
		return 0, fault(io.EOF)
	}
	switch b := r.data[r.off]; {
	case msgpcode.IsFixedNum(b):
		return mapping.Int, nil
	case msgpcode.IsFixedMap(b), b == msgpcode.Map16, b == msgpcode.Map32:
		return mapping.Map, nil
	case msgpcode.IsFixedArray(b), b == msgpcode.Array16, b == msgpcode.Array32:
		return mapping.List, nil
	case msgpcode.IsString(b):
		return mapping.Text, nil
	case msgpcode.IsBin(b):
		return mapping.Bytes, nil
	case b == msgpcode.Nil:
		return mapping.Nil, nil
	case b == msgpcode.False, b == msgpcode.True:
		return mapping.Bool, nil
	case b == msgpcode.Float, b == msgpcode.Double:
		return mapping.Float, nil
	case b == msgpcode.Uint64:
		if r.off+1 < len(r.data) && r.data[r.off+1] > math.MaxInt8 {
			return mapping.Uint, nil
		}
		return mapping.Int, nil
	case msgpcode.Uint8 <= b && b <= msgpcode.Int64:
		return mapping.Int, nil
	case msgpcode.IsExt(b):
		return r.extension()
	default:
		return 0, mapping.Errorf("the byte 0x%02x begins no value", b)
	}
}

// extension looks at the type of the extension that comes next.
func (r *reader) extension() (mapping.Kind, error) {
	start := r.off
	id, n, err := r.dec.DecodeExtHeader()
	rest := len(r.data) - r.off
	r.off = start
	switch {
	case err != nil || n < 0 || n > rest:
		return 0, fault(io.EOF)
	case id != timestamp:
		return 0, mapping.Errorf("the extension of type %d is not known", id)
	case n != 4 && n != 8 && n != 12:
		return 0, mapping.Errorf("a timestamp of %d bytes, want 4, 8 or 12", n)
	}
	return mapping.Time, nil
}

func (r *reader) Nil() error { return fault(r.dec.DecodeNil()) }

func (r *reader) Bool() (bool, error) {
	v, err := r.dec.DecodeBool()
	return v, fault(err)
}

func (r *reader) Int() (int64, error) {
	v, err := r.dec.DecodeInt64()
	return v, fault(err)
}

func (r *reader) Uint() (uint64, error) {
	v, err := r.dec.DecodeUint64()
	return v, fault(err)
}

func (r *reader) Float() (float64, error) {
	v, err := r.dec.DecodeFloat64()
	return v, fault(err)
}

func (r *reader) Time() (time.Time, error) {
	v, err := r.dec.DecodeTime()
	return v.UTC(), fault(err)
}

// take gives the bytes of a str or bin, of which only the length has to be read.
func (r *reader) take() ([]byte, error) {
	n, err := r.dec.DecodeBytesLen()
	if err != nil || n < 0 || n > len(r.data)-r.off {
		return nil, fault(io.EOF)
	}
	r.off += n
	return r.data[r.off-n : r.off], nil
}

func (r *reader) text() ([]byte, error) {
	text, err := r.take()
	if err == nil && !utf8.Valid(text) {
		err = mapping.Errorf("a string that is not UTF-8")
	}
	return text, err
}

func (r *reader) Text() (string, error) {
	text, err := r.text()
	return string(text), err
}

func (r *reader) Bytes() ([]byte, error) {
	data, err := r.take()
	return append(make([]byte, 0, len(data)), data...), err
}

// begin holds the length of a list or map against what there is: each value takes a byte at least.
func (r *reader) begin(what string, n, least int, err error) (int, error) {
	if rest := len(r.data) - r.off; err != nil || n < 0 || n > rest/least {
		if err == nil && n > 0 {
			return 0, mapping.Errorf("a %s of %d in %d bytes", what, n, rest)
		}
		return 0, fault(io.EOF)
	}
	r.open = append(r.open, n)
	return n, nil
}

// more goes to the next value of the innermost list or map.
func (r *reader) more() bool {
	last := len(r.open) - 1
	if r.open[last] == 0 {
		r.open = r.open[:last]
		return false
	}
	r.open[last]--
	return true
}

func (r *reader) List() (int, error) {
	n, err := r.dec.DecodeArrayLen()
	return r.begin("list", n, 1, err)
}

func (r *reader) Element() (bool, error) { return r.more(), nil }

func (r *reader) Map() (int, error) {
	n, err := r.dec.DecodeMapLen()
	return r.begin("map", n, 2, err)
}

func (r *reader) Key() ([]byte, bool, error) {
	if !r.more() {
		return nil, false, nil
	}
	kind, err := r.Next()
	if err != nil {
		return nil, false, err
	}
	switch kind {
	case mapping.Text:
		key, err := r.text()
		return key, err == nil, err
	case mapping.Int:
		n, err := r.Int()
		r.key = strconv.AppendInt(r.key[:0], n, 10)
		return r.key, err == nil, err
	case mapping.Uint:
		n, err := r.Uint()
		r.key = strconv.AppendUint(r.key[:0], n, 10)
		return r.key, err == nil, err
	}
	return nil, false, mapping.Errorf("a key of a map is a string, not %s", kind)
}
