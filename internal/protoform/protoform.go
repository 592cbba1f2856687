// Package protoform gives Go types a form in protobuf, for handlers on plain structs whose callers speak gRPC: descriptors, as a
// .proto file would give them, and the messages themselves, read and written by reflection.
//
// The rules, which are those of proto3 where nothing else is said:
//
//   - A struct is a message. Its fields are those that encoding/json sees, numbered from 1 in the order of their declaration, an
//     embedded struct's in its place. A field added at the end breaks no caller; one moved, or added before others, does. A
//     field's JSON name is encoding/json's, and its name the same where that is an identifier: other characters become "_".
//   - bool, string, []byte, float32 and float64 are what they are called. int8 to int32 are int32, int and int64 are int64, the
//     unsigned ones are uint32 and uint64. A number that its Go type cannot hold is an error.
//   - A pointer is what it points to, and nil where that is absent: a pointer to a scalar is an optional field.
//   - A slice or an array is repeated, but an array of bytes, which is bytes. A map is a map. Where either stands in a place that
//     takes none - in a list, as the value of a map, as a whole request - a message of one field, "value", is around it.
//   - time.Time is google.protobuf.Timestamp, time.Duration is google.protobuf.Duration; the zero Time is absent.
//   - What writes and reads itself as text (encoding.TextMarshaler and TextUnmarshaler) is a string; so is json.Number.
//   - An interface, a json.RawMessage, what has a JSON of its own, and a map whose keys are no text or number, is
//     google.protobuf.Value, which holds any JSON.
//   - A protobuf message in a field is that message.
//
// Fields that are not known are passed over, as in protobuf. Strings must be UTF-8. Messages stand at most [MaxDepth] inside
// each other.
package protoform

import (
	"encoding"
	"encoding/json"
	"reflect"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cb02dfca/micro/internal/jsonfield"
)

// MaxDepth is how many messages may stand inside each other, as in other implementations.
const MaxDepth = 100

// Forms gives the forms of types, each made once. The zero value is ready. Its methods may be called concurrently.
type Forms struct {
	mu    sync.RWMutex
	known map[reflect.Type]*Form
}

// Form is how a Go type stands in protobuf as a message. It is not changed after it was made.
type Form struct {
	// message is the descriptor of a form that exists in protobuf already; nil where the fields are the form's own.
	message protoreflect.MessageDescriptor
	whole   *shape // of such a form
	typ     reflect.Type
	title   string
	fields  []*field
	numbers map[protowire.Number]*field
}

// field is one of a message's.
type field struct {
	number protowire.Number
	name   string // in JSON
	doc    string
	index  []int // empty is the value itself: the message is around it
	typ    reflect.Type
	label  label
	key    *shape // of a map
	shape  *shape // of the value, of an element, of a map's values
}

// label is how often a field's value stands in it.
type label uint8

const (
	single   label = iota
	optional       // a pointer to a scalar
	list
	mapping
)

// Of gives the form of a type, or of what it points to.
func (fs *Forms) Of(t reflect.Type) *Form {
	t = pointee(t)
	fs.mu.RLock()
	f := fs.known[t]
	fs.mu.RUnlock()
	if f != nil {
		return f
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.make(t)
}

// pointee follows pointers; one that leads to itself has no end.
func pointee(t reflect.Type) reflect.Type {
	for range MaxDepth {
		if t.Kind() != reflect.Pointer {
			return t
		}
		t = t.Elem()
	}
	return anyType
}

// make gives the form of t, which is no pointer; mu is held. The form is known before its fields are: they may lead back to it.
func (fs *Forms) make(t reflect.Type) *Form {
	if f := fs.known[t]; f != nil {
		return f
	}
	if fs.known == nil {
		fs.known = map[reflect.Type]*Form{}
	}
	f := &Form{typ: t, numbers: map[protowire.Number]*field{}}
	fs.known[t] = f
	if k := kindOf(t); k == ownStruct {
		f.title = titleOf(t)
		for i, sf := range jsonfield.Of(t) {
			f.add(fs.field(protowire.Number(i+1), sf))
		}
	} else if s := fs.shapeOf(t, k); s.message != nil {
		f.message, f.whole = s.message, s
	} else {
		f.title = titleOf(t)
		f.add(fs.field(1, jsonfield.Field{Name: "value", Type: t}))
	}
	return f
}

// add adds a field; nil is one that no protobuf can carry, whose number stays its own.
func (f *Form) add(fd *field) {
	if fd != nil {
		f.fields = append(f.fields, fd)
		f.numbers[fd.number] = fd
	}
}

// field makes a field. One of a number that is reserved to protobuf itself, the 19000th and so on, is left out.
func (fs *Forms) field(number protowire.Number, sf jsonfield.Field) *field {
	if number >= protowire.FirstReservedNumber && number <= protowire.LastReservedNumber {
		return nil
	}
	fd := &field{number: number, name: sf.Name, doc: sf.Tag.Get("doc"), index: sf.Index, typ: sf.Type}
	t := pointee(sf.Type)
	switch k := kindOf(t); {
	case k == none:
		return nil
	case k == ownList:
		fd.label, fd.shape = list, fs.element(t.Elem())
	case k == ownMap:
		fd.label, fd.key, fd.shape = mapping, keyShape(t.Key()), fs.element(t.Elem())
	default:
		fd.shape = fs.shapeOf(t, k)
		if sf.Type.Kind() == reflect.Pointer && !fd.shape.isMessage() {
			fd.label = optional
		}
	}
	if fd.shape == nil {
		return nil
	}
	return fd
}

// element gives the shape of what stands in a list or a map: a list or a map there has a message around it.
func (fs *Forms) element(t reflect.Type) *shape {
	t = pointee(t)
	k := kindOf(t)
	if k == none {
		return nil
	}
	if k == ownList || k == ownMap {
		return formShape(fs.make(t))
	}
	return fs.shapeOf(t, k)
}

// kind is which of the rules a type goes by.
type kind uint8

const (
	none kind = iota // no protobuf, and no JSON
	scalar
	bytesKind
	text
	moment
	span
	message
	anything // by its JSON
	ownStruct
	ownList
	ownMap
)

var (
	anyType         = reflect.TypeFor[any]()
	timeType        = reflect.TypeFor[time.Time]()
	durationType    = reflect.TypeFor[time.Duration]()
	numberType      = reflect.TypeFor[json.Number]()
	marshaler       = reflect.TypeFor[json.Marshaler]()
	unmarshaler     = reflect.TypeFor[json.Unmarshaler]()
	textMarshaler   = reflect.TypeFor[encoding.TextMarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
	protoMessage    = reflect.TypeFor[proto.Message]()
)

// kindOf sorts a type, which is no pointer.
func kindOf(t reflect.Type) kind {
	switch {
	case t == timeType:
		return moment
	case t == durationType:
		return span
	case t == numberType:
		return scalar
	case descriptorOf(t) != nil:
		return message
	case has(t, textMarshaler) && has(t, textUnmarshaler) && !(has(t, marshaler) && has(t, unmarshaler)):
		return text
	case has(t, marshaler), has(t, unmarshaler), has(t, textMarshaler), has(t, textUnmarshaler):
		return anything
	}
	switch t.Kind() {
	case reflect.Struct:
		return ownStruct
	case reflect.Interface:
		return anything
	case reflect.Slice, reflect.Array:
		if e := t.Elem(); e.Kind() == reflect.Uint8 && kindOf(e) == scalar {
			return bytesKind
		}
		return ownList
	case reflect.Map:
		if keyShape(t.Key()) == nil {
			return anything
		}
		return ownMap
	case reflect.Chan, reflect.Func, reflect.Complex64, reflect.Complex128, reflect.UnsafePointer, reflect.Invalid:
		return none
	}
	return scalar
}

func has(t, method reflect.Type) bool {
	return t.Kind() != reflect.Interface && (t.Implements(method) || reflect.PointerTo(t).Implements(method))
}

// descriptorOf gives the descriptor of a generated message, of which t is the struct; nil for any other type. A dynamic
// message's type does not tell what it is.
func descriptorOf(t reflect.Type) protoreflect.MessageDescriptor {
	if t.Kind() != reflect.Struct || !reflect.PointerTo(t).Implements(protoMessage) || t.PkgPath() == "google.golang.org/protobuf/types/dynamicpb" {
		return nil
	}
	m, ok := reflect.Zero(reflect.PointerTo(t)).Interface().(proto.Message)
	if !ok {
		return nil
	}
	return m.ProtoReflect().Descriptor()
}

// The messages that stand for Go types of other names.
var (
	timestampDescriptor = (*timestamppb.Timestamp)(nil).ProtoReflect().Descriptor()
	durationDescriptor  = (*durationpb.Duration)(nil).ProtoReflect().Descriptor()
	valueDescriptor     = (*structpb.Value)(nil).ProtoReflect().Descriptor()
)

// Representable reports whether values of the type have a form at all: a channel has none.
func (f *Form) Representable() bool { return kindOf(f.typ) != none }

// Descriptor gives the descriptor of a type that is a protobuf message, or points to one; nil for any other, and for nil.
func Descriptor(t reflect.Type) protoreflect.MessageDescriptor {
	if t == nil {
		return nil
	}
	return descriptorOf(pointee(t))
}
