package server

import (
	"reflect"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// store makes an endpoint's messages of one type, and where the handler agreed to it uses them again.
type store struct {
	create func() any
	pool   *sync.Pool // nil: each message is new
	empty  func(v any)
}

// newStore gives a store of what create makes. keep has a message keep the storage of its fields where it can. That is right
// for what only a codec fills: a handler puts slices into a message that are others'.
func newStore(create func() any, pooled, keep bool) store {
	s := store{create: create}
	if pooled {
		s.pool, s.empty = new(sync.Pool), emptier(create(), keep)
	}
	return s
}

// storeOf gives a store of a type.
func storeOf[T any](pooled, keep bool) store {
	return newStore(func() any { return new(T) }, pooled, keep)
}

// get gives an empty message.
func (s *store) get() any {
	if s.pool != nil {
		if v := s.pool.Get(); v != nil {
			return v
		}
	}
	return s.create()
}

// put takes a message that nobody holds any more. It is emptied at once, so that the pool keeps nothing alive.
func (s *store) put(v any) {
	if s.pool != nil {
		s.empty(v)
		s.pool.Put(v)
	}
}

// resetter is a message with the method of vtprotobuf's feature pool that empties it, and keeps its storage.
type resetter interface{ ResetVT() }

// emptier gives what empties messages of the type that v points to.
func emptier(v any, keep bool) func(v any) {
	m, isMessage := v.(proto.Message)
	if _, ok := v.(resetter); ok && keep && !(isMessage && tellsEmptyBytes(m)) {
		return func(v any) { v.(resetter).ResetVT() }
	}
	if isMessage {
		return func(v any) { proto.Reset(v.(proto.Message)) }
	}
	return func(v any) { reflect.ValueOf(v).Elem().SetZero() }
}

// tellsEmptyBytes reports whether m has a field in which bytes that are empty differ from none: ResetVT leaves the former.
func tellsEmptyBytes(m proto.Message) bool {
	fields := m.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		if f := fields.Get(i); f.Kind() == protoreflect.BytesKind && f.HasPresence() {
			return true
		}
	}
	return false
}
