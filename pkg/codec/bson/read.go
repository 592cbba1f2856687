package bson

import (
	"encoding/binary"
	"errors"
	"io"
	"reflect"
	"time"
	"unicode/utf8"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/cb02dfca/micro/pkg/codec/internal/mapping"
)

// minDocument is the size of an empty document: its length, and the zero byte at its end.
const minDocument = 5

// reader takes tokens from a document. One is used again and again.
type reader struct {
	values *mapping.Decoder // reads from this reader
	target any              // what the body is read into
	next   bson.ValueReader // the next value
	open   []reading        // the documents and arrays that were begun
	key    []byte           // the last one
}

// reading is a document or an array.
type reading struct {
	document bson.DocumentReader
	array    bson.ArrayReader
}

var _ mapping.Source = (*reader)(nil)

func newReader(t *mapping.Types, strict bool) *reader {
	r := new(reader)
	r.values = mapping.NewDecoder(t, r, strict)
	return r
}

// newRegistry makes the library hand a reader its ValueReader of bytes that are in memory: it gives that to decoders only.
func newRegistry() *bson.Registry {
	reg, t := bson.NewRegistry(), reflect.TypeFor[*reader]()
	reg.RegisterTypeDecoder(t, bson.ValueDecoderFunc(func(_ bson.DecodeContext, next bson.ValueReader, v reflect.Value) error {
		r := v.Interface().(*reader) //nolint:forcetypeassert // it is registered for no other
		r.next = next
		return r.values.Decode(r.target)
	}))
	return reg
}

// read decodes a body into v.
func (r *reader) read(reg *bson.Registry, data []byte, v any) error {
	body, err := bodyOf(data)
	if err != nil {
		return err
	}
	r.target, r.open = v, r.open[:0]
	err = body.UnmarshalWithRegistry(reg, &r)
	r.target, r.next = nil, nil
	clear(r.open[:cap(r.open)])
	return err
}

// bodyOf gives the value that a document holds: itself, or that of its only element where the key of this is empty.
func bodyOf(data []byte) (bson.RawValue, error) {
	if len(data) < minDocument {
		return bson.RawValue{}, cutOff()
	}
	if says := binary.LittleEndian.Uint32(data); uint64(says) != uint64(len(data)) {
		return bson.RawValue{}, mapping.Errorf("the document says that it has %d bytes, and %d came", says, len(data))
	}
	if len(data) > minDocument && data[5] == 0 { // the first key is empty
		first, err := bson.Raw(data).IndexErr(0)
		if err == nil && len(first) == len(data)-minDocument && data[len(data)-1] == 0 {
			return first.Value(), nil
		}
	}
	return bson.RawValue{Type: bson.TypeEmbeddedDocument, Value: data}, nil
}

func cutOff() error { return mapping.Errorf("unexpected end of the data") }

// fault is an error of the library as one about the data.
func fault(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return cutOff()
	}
	return mapping.Errorf("%v", err)
}

func (r *reader) Next() (mapping.Kind, error) {
	switch t := r.next.Type(); t {
	case bson.TypeNull, bson.TypeUndefined:
		return mapping.Nil, nil
	case bson.TypeBoolean:
		return mapping.Bool, nil
	case bson.TypeInt32, bson.TypeInt64:
		return mapping.Int, nil
	case bson.TypeDouble:
		return mapping.Float, nil
	case bson.TypeString, bson.TypeSymbol, bson.TypeObjectID:
		return mapping.Text, nil
	case bson.TypeBinary:
		return mapping.Bytes, nil
	case bson.TypeDateTime:
		return mapping.Time, nil
	case bson.TypeArray:
		return mapping.List, nil
	case bson.TypeEmbeddedDocument:
		return mapping.Map, nil
	default:
		if !t.IsValid() {
			return 0, mapping.Errorf("the type 0x%02x is not known", byte(t))
		}
		return 0, mapping.Errorf("a value of the type %s is not taken", t)
	}
}

func (r *reader) Nil() error {
	if r.next.Type() == bson.TypeUndefined {
		return fault(r.next.ReadUndefined())
	}
	return fault(r.next.ReadNull())
}

func (r *reader) Bool() (bool, error) {
	b, err := r.next.ReadBoolean()
	return b, fault(err)
}

func (r *reader) Int() (int64, error) {
	if r.next.Type() == bson.TypeInt32 {
		n, err := r.next.ReadInt32()
		return int64(n), fault(err)
	}
	n, err := r.next.ReadInt64()
	return n, fault(err)
}

// Uint is of no value here: the largest integer is an int64.
func (r *reader) Uint() (uint64, error) {
	n, err := r.Int()
	return uint64(n), err
}

func (r *reader) Float() (float64, error) {
	f, err := r.next.ReadDouble()
	return f, fault(err)
}

func (r *reader) Text() (text string, err error) {
	switch r.next.Type() {
	case bson.TypeObjectID:
		id, err := r.next.ReadObjectID()
		return id.Hex(), fault(err)
	case bson.TypeSymbol:
		text, err = r.next.ReadSymbol()
	default:
		text, err = r.next.ReadString()
	}
	if err == nil && !utf8.ValidString(text) {
		return "", notUTF8()
	}
	return text, fault(err)
}

func notUTF8() error { return mapping.Errorf("a string that is not UTF-8") }

func (r *reader) Bytes() ([]byte, error) {
	data, _, err := r.next.ReadBinary()
	return data, fault(err)
}

func (r *reader) Time() (time.Time, error) {
	ms, err := r.next.ReadDateTime()
	return time.UnixMilli(ms).UTC(), fault(err)
}

func (r *reader) List() (int, error) {
	a, err := r.next.ReadArray()
	r.open = append(r.open, reading{array: a})
	return 0, fault(err)
}

// Element leaves the keys of an array unread, which are its indexes.
func (r *reader) Element() (bool, error) {
	last := len(r.open) - 1
	next, err := r.open[last].array.ReadValue()
	if errors.Is(err, bson.ErrEOA) {
		r.open = r.open[:last]
		return false, nil
	}
	r.next = next
	return err == nil, fault(err)
}

func (r *reader) Map() (int, error) {
	d, err := r.next.ReadDocument()
	r.open = append(r.open, reading{document: d})
	return 0, fault(err)
}

func (r *reader) Key() ([]byte, bool, error) {
	last := len(r.open) - 1
	key, next, err := r.open[last].document.ReadElement()
	switch {
	case errors.Is(err, bson.ErrEOD):
		r.open = r.open[:last]
		return nil, false, nil
	case err != nil:
		return nil, false, fault(err)
	case !utf8.ValidString(key):
		return nil, false, notUTF8()
	}
	r.next = next
	r.key = append(r.key[:0], key...)
	return r.key, true, nil
}
