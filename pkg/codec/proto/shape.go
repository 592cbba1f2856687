package proto

import (
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// shape is what is to be known of a type before vtprotobuf's methods may take the place of package proto. It is not changed
// after it was made.
type shape struct {
	message *message
	// texts says that there are strings that must be UTF-8.
	texts bool
	// foreign says that vtprotobuf's methods treat the type otherwise than package proto does: they do not write extensions,
	// and take numbers for a closed enum that it lacks.
	foreign bool
	// resettable says that ResetVT leaves nothing behind. It leaves bytes that are empty where there were some: in a field
	// that tells these from none they would be a value.
	resettable bool
}

// message is what the encoding of one type of message is looked through for.
type message struct {
	low  [16]field // those with small numbers, of a single byte
	high map[protowire.Number]field
	// matters says that there is something to look for, in the message or in those inside it: strings, or messages that may
	// stand inside each other without end.
	matters bool
	// open says that the type is being walked through: who meets it then has come round in a circle.
	open bool
}

// field is one that may have to be looked into.
type field struct {
	text    bool     // it must be UTF-8
	message *message // nil: it is none
}

// newShape walks through a type and those inside it.
func newShape(d protoreflect.MessageDescriptor) *shape {
	s := &shape{resettable: true}
	s.message = s.walk(d, map[protoreflect.FullName]*message{})
	return s
}

func (s *shape) walk(d protoreflect.MessageDescriptor, known map[protoreflect.FullName]*message) *message {
	if m, ok := known[d.FullName()]; ok {
		m.matters = m.matters || m.open
		return m
	}
	m := &message{open: true}
	known[d.FullName()] = m
	s.foreign = s.foreign || d.ExtensionRanges().Len() > 0
	for i := range d.Fields().Len() {
		fd := d.Fields().Get(i)
		var f field
		switch fd.Kind() {
		case protoreflect.StringKind:
			f.text = utf8Only(fd)
		case protoreflect.BytesKind:
			oneof := fd.ContainingOneof()
			s.resettable = s.resettable && (!fd.HasPresence() || oneof != nil && !oneof.IsSynthetic())
		case protoreflect.EnumKind:
			s.foreign = s.foreign || fd.Enum().IsClosed()
		case protoreflect.MessageKind, protoreflect.GroupKind:
			f.message = s.walk(fd.Message(), known)
		}
		s.texts = s.texts || f.text
		m.matters = m.matters || f.text || f.message != nil && f.message.matters
		m.set(fd.Number(), f)
	}
	m.open = false
	return m
}

// utf8Only reports whether a string that is no UTF-8 is refused in a field, as package proto does: in proto3, and in editions
// where the feature utf8_validation says so.
func utf8Only(fd protoreflect.FieldDescriptor) bool {
	if f, ok := fd.(interface{ EnforceUTF8() bool }); ok {
		return f.EnforceUTF8()
	}
	return fd.Syntax() == protoreflect.Proto3
}

func (m *message) set(n protowire.Number, f field) {
	if int(n) < len(m.low) {
		m.low[n] = f
		return
	}
	if m.high == nil {
		m.high = map[protowire.Number]field{}
	}
	m.high[n] = f
}

func (m *message) field(n protowire.Number) field {
	if int(n) < len(m.low) {
		return m.low[n]
	}
	return m.high[n]
}

// sound reports whether data is the encoding of a message without groups in which strings are UTF-8, and at most depth
// messages stand inside each other. What it does not take, package proto may.
func (m *message) sound(data []byte, depth int) bool {
	if depth == 0 {
		return false
	}
	for len(data) > 0 {
		num, typ, n := protowire.ConsumeTag(data)
		if n < 0 || typ == protowire.StartGroupType {
			return false
		}
		data = data[n:]
		if typ != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(num, typ, data); n < 0 {
				return false
			}
			data = data[n:]
			continue
		}
		value, n := protowire.ConsumeBytes(data)
		if n < 0 {
			return false
		}
		data = data[n:]
		f := m.field(num)
		if f.text && !utf8.Valid(value) {
			return false
		}
		if f.message != nil && f.message.matters && !f.message.sound(value, depth-1) {
			return false
		}
	}
	return true
}
