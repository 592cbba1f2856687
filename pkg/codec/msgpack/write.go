package msgpack

import (
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/cb02dfca/micro/pkg/codec/internal/mapping"
)

// writer appends tokens to a slice. One is used again and again.
type writer struct {
	enc    *msgpack.Encoder // writes to this writer
	values *mapping.Encoder // as does this, by the former
	dst    []byte
}

var _ mapping.Sink = (*writer)(nil)

func newWriter(t *mapping.Types) *writer {
	w := new(writer)
	w.enc = msgpack.NewEncoder(w)
	w.values = mapping.NewEncoder(t, w)
	return w
}

func (w *writer) Write(p []byte) (int, error) {
	w.dst = append(w.dst, p...)
	return len(p), nil
}

func (w *writer) WriteByte(b byte) error {
	w.dst = append(w.dst, b)
	return nil
}

func (w *writer) Nil() error              { return w.enc.EncodeNil() }
func (w *writer) Bool(v bool) error       { return w.enc.EncodeBool(v) }
func (w *writer) Int(v int64) error       { return w.enc.EncodeInt(v) }
func (w *writer) Uint(v uint64) error     { return w.enc.EncodeUint(v) }
func (w *writer) Float32(v float32) error { return w.enc.EncodeFloat32(v) }
func (w *writer) Float(v float64) error   { return w.enc.EncodeFloat64(v) }
func (w *writer) Text(v string) error     { return w.enc.EncodeString(v) }
func (w *writer) Bytes(v []byte) error    { return w.enc.EncodeBytes(v) }
func (w *writer) Time(v time.Time) error  { return w.enc.EncodeTime(v) }
func (w *writer) List(n int) error        { return w.enc.EncodeArrayLen(n) }
func (w *writer) EndList() error          { return nil }
func (w *writer) Map(n int) error         { return w.enc.EncodeMapLen(n) }
func (w *writer) Key(k string) error      { return w.enc.EncodeString(k) }
func (w *writer) EndMap() error           { return nil }
