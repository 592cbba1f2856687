package bson

import (
	"math"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/codec/internal/mapping"
)

// keepBuffer is the size of a document after which a writer is kept, with its buffer, for the next.
const keepBuffer = 64 << 10

// holder is the key of a body that is no document.
const holder = ""

// writer appends one document after the other to slices.
type writer struct {
	top    bson.ValueWriter // writes to this writer
	values *mapping.Encoder // as does this, by the former
	dst    []byte
	open   []level // the documents and arrays that were begun
	next   bson.ValueWriter
	held   bool // the body stands in a document of its own
	lone   bool // the body is a map of one entry, whose key decides whether it does
}

// level is a document or an array.
type level struct {
	document bson.DocumentWriter
	array    bson.ArrayWriter
}

var _ mapping.Sink = (*writer)(nil)

func newWriter(t *mapping.Types) *writer {
	w := new(writer)
	w.top = bson.NewDocumentWriter(w)
	w.values = mapping.NewEncoder(t, w)
	return w
}

// Write takes a whole document.
func (w *writer) Write(p []byte) (int, error) {
	w.dst = append(w.dst, p...)
	return len(p), nil
}

// end ends the document that holds a body.
func (w *writer) end() error {
	if !w.held {
		return nil
	}
	w.held = false
	return w.EndMap()
}

// value gives the place of the next value.
func (w *writer) value() (bson.ValueWriter, error) {
	if len(w.open) == 0 {
		w.held = true
		return w.hold()
	}
	if l := &w.open[len(w.open)-1]; l.array != nil {
		return l.array.WriteArrayElement()
	}
	return w.next, nil
}

// hold begins the document that holds the body, and gives its element.
func (w *writer) hold() (bson.ValueWriter, error) {
	d, err := w.top.WriteDocument()
	if err != nil {
		return nil, err
	}
	w.open = append(w.open, level{document: d})
	return d.WriteDocumentElement(holder)
}

func (w *writer) Nil() error {
	v, err := w.value()
	if err != nil {
		return err
	}
	return v.WriteNull()
}

func (w *writer) Bool(b bool) error {
	v, err := w.value()
	if err != nil {
		return err
	}
	return v.WriteBoolean(b)
}

func (w *writer) Int(n int64) error {
	v, err := w.value()
	switch {
	case err != nil:
		return err
	case math.MinInt32 <= n && n <= math.MaxInt32:
		return v.WriteInt32(int32(n))
	}
	return v.WriteInt64(n)
}

func (w *writer) Uint(n uint64) error {
	if n > math.MaxInt64 {
		return codec.Unsupported("%d is above the largest integer, an int64", n)
	}
	return w.Int(int64(n))
}

func (w *writer) Float32(f float32) error { return w.Float(float64(f)) }

func (w *writer) Float(f float64) error {
	v, err := w.value()
	if err != nil {
		return err
	}
	return v.WriteDouble(f)
}

func (w *writer) Text(s string) error {
	v, err := w.value()
	if err != nil {
		return err
	}
	return v.WriteString(s)
}

func (w *writer) Bytes(b []byte) error {
	v, err := w.value()
	if err != nil {
		return err
	}
	return v.WriteBinary(b)
}

func (w *writer) Time(t time.Time) error {
	v, err := w.value()
	if err != nil {
		return err
	}
	return v.WriteDateTime(t.UnixMilli())
}

func (w *writer) List(int) error {
	v, err := w.value()
	if err != nil {
		return err
	}
	a, err := v.WriteArray()
	w.open = append(w.open, level{array: a})
	return err
}

func (w *writer) EndList() error {
	last := len(w.open) - 1
	a := w.open[last].array
	w.open = w.open[:last]
	return a.WriteArrayEnd()
}

func (w *writer) Map(n int) error {
	switch {
	case len(w.open) == 0 && n == 1:
		w.lone = true // until its key is known
		return nil
	case len(w.open) == 0:
		return w.document(w.top, nil)
	}
	return w.document(w.value())
}

// document begins one in the place of v.
func (w *writer) document(v bson.ValueWriter, err error) error {
	if err != nil {
		return err
	}
	d, err := v.WriteDocument()
	w.open = append(w.open, level{document: d})
	return err
}

func (w *writer) Key(k string) (err error) {
	if strings.IndexByte(k, 0) >= 0 {
		return codec.Unsupported("the key %.40q has a zero byte in it", k)
	}
	if w.lone {
		w.lone = false
		if k == holder {
			err = w.document(w.value())
		} else {
			err = w.document(w.top, nil)
		}
		if err != nil {
			return err
		}
	}
	w.next, err = w.open[len(w.open)-1].document.WriteDocumentElement(k)
	return err
}

func (w *writer) EndMap() error {
	last := len(w.open) - 1
	d := w.open[last].document
	w.open = w.open[:last]
	return d.WriteDocumentEnd()
}
