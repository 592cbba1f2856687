package protoform

import (
	"fmt"
	"reflect"

	"google.golang.org/protobuf/encoding/protowire"
)

// Append appends the message that v, a value of the form's type or a pointer to one, is. A nil pointer is an empty message. On an
// error dst is given as it was.
func (f *Form) Append(dst []byte, v any) ([]byte, error) {
	rv, ok := follow(reflect.ValueOf(v))
	if !ok {
		return dst, nil
	}
	if rv.Type() != f.typ {
		return dst, fmt.Errorf("%T is no %s", v, f.typ)
	}
	out, err := f.append(dst, rv, 1)
	if err != nil {
		return dst, err
	}
	return out, nil
}

// Unmarshal reads a message into v, a pointer to a value of the form's type, whose former content is lost.
func (f *Form) Unmarshal(data []byte, v any) error {
	rv := reflect.ValueOf(v)
	if rv.Kind() != reflect.Pointer || rv.IsNil() {
		return fmt.Errorf("%T is no pointer to %s", v, f.typ)
	}
	rv.Elem().SetZero()
	rv = settle(rv)
	if rv.Type() != f.typ {
		return fmt.Errorf("%T is no pointer to %s", v, f.typ)
	}
	return f.read(rv, data, 1)
}

// follow follows pointers, to nothing where one is nil.
func follow(v reflect.Value) (reflect.Value, bool) {
	for hops := 0; v.Kind() == reflect.Pointer && hops < MaxDepth; hops++ {
		if v.IsNil() {
			return v, false
		}
		v = v.Elem()
	}
	return v, v.IsValid()
}

// settle follows pointers, and puts something where one is nil and can be set.
func settle(v reflect.Value) reflect.Value {
	for hops := 0; v.Kind() == reflect.Pointer && hops < MaxDepth; hops++ {
		if v.IsNil() {
			if !v.CanSet() {
				return v
			}
			v.Set(reflect.New(v.Type().Elem()))
		}
		v = v.Elem()
	}
	return v
}

func (f *Form) append(dst []byte, v reflect.Value, depth int) ([]byte, error) {
	if depth > MaxDepth {
		return dst, errDepth
	}
	if f.message != nil { // its own fields, without the length that it has in another message
		framed, err := f.whole.append(nil, v, depth)
		if err != nil {
			return dst, err
		}
		_, n := protowire.ConsumeVarint(framed)
		return append(dst, framed[n:]...), nil
	}
	for _, fd := range f.fields {
		value, ok := fd.get(v)
		if !ok {
			continue
		}
		out, err := fd.append(dst, value, depth)
		if err != nil {
			return dst, fmt.Errorf("%s: %w", fd.name, err)
		}
		dst = out
	}
	return dst, nil
}

// get gives a field's value; false where it is absent.
func (fd *field) get(v reflect.Value) (reflect.Value, bool) {
	for _, i := range fd.index {
		var ok bool
		if v, ok = follow(v); !ok {
			return v, false
		}
		v = v.Field(i)
	}
	pointer := v.Kind() == reflect.Pointer
	v, ok := follow(v)
	if !ok {
		return v, false
	}
	// A struct of Go is always there: whether its message is shows when it is written.
	if !pointer && fd.shape.form == nil && v.IsZero() || v.Kind() == reflect.Slice && v.Len() == 0 && fd.label != optional {
		return v, false
	}
	return v, true
}

func (fd *field) append(dst []byte, v reflect.Value, depth int) ([]byte, error) {
	switch fd.label {
	case list:
		return fd.appendList(dst, v, depth)
	case mapping:
		return fd.appendMap(dst, v, depth)
	}
	out, err := fd.shape.append(protowire.AppendTag(dst, fd.number, fd.shape.wire), v, depth)
	if err != nil {
		return dst, err
	}
	if fd.shape.form != nil && v.IsZero() && fd.typ.Kind() != reflect.Pointer {
		return dst, nil // an empty struct
	}
	return out, nil
}

func (fd *field) appendList(dst []byte, v reflect.Value, depth int) (out []byte, err error) {
	each := func(dst []byte, tag bool) ([]byte, error) {
		for i := range v.Len() {
			if tag {
				dst = protowire.AppendTag(dst, fd.number, fd.shape.wire)
			}
			if dst, err = fd.appendElement(dst, v.Index(i), depth); err != nil {
				return dst, fmt.Errorf("%d: %w", i, err)
			}
		}
		return dst, nil
	}
	if !fd.shape.packs() {
		return each(dst, true)
	}
	return appendLengthOf(protowire.AppendTag(dst, fd.number, protowire.BytesType), func(dst []byte) ([]byte, error) { return each(dst, false) })
}

// appendElement appends what stands in a list or a map: nil as what it would point to, empty.
func (fd *field) appendElement(dst []byte, v reflect.Value, depth int) ([]byte, error) {
	e, ok := follow(v)
	if !ok {
		e = reflect.Zero(pointee(v.Type()))
	}
	return fd.shape.append(dst, e, depth)
}

func (fd *field) appendMap(dst []byte, v reflect.Value, depth int) ([]byte, error) {
	for it := v.MapRange(); it.Next(); {
		var err error
		dst, err = appendLengthOf(protowire.AppendTag(dst, fd.number, protowire.BytesType), func(dst []byte) ([]byte, error) {
			dst, err := fd.key.append(protowire.AppendTag(dst, 1, fd.key.wire), it.Key(), depth+1)
			if err != nil {
				return dst, err
			}
			return fd.appendElement(protowire.AppendTag(dst, 2, fd.shape.wire), it.Value(), depth+1)
		})
		if err != nil {
			return dst, fmt.Errorf("%v: %w", it.Key(), err)
		}
	}
	return dst, nil
}

func (f *Form) read(v reflect.Value, data []byte, depth int) error {
	if depth > MaxDepth {
		return errDepth
	}
	if f.message != nil {
		return f.whole.read(v, 0, data, depth)
	}
	var filled map[protowire.Number]int // how much of an array is
	for len(data) > 0 {
		number, wire, n := protowire.ConsumeTag(data)
		if n < 0 {
			return clean(n)
		}
		data = data[n:]
		fd := f.numbers[number]
		if fd == nil || !fd.takes(wire) {
			if n = protowire.ConsumeFieldValue(number, wire, data); n < 0 {
				return clean(n)
			}
			data = data[n:]
			continue
		}
		bits, chunk, n := consume(wire, data)
		if n < 0 {
			return clean(n)
		}
		data = data[n:]
		if fd.label == list && filled == nil {
			filled = map[protowire.Number]int{}
		}
		if err := fd.read(v, wire, bits, chunk, depth, filled); err != nil {
			return fmt.Errorf("%s: %w", fd.name, err)
		}
	}
	return nil
}

// takes reports whether the field is read from such a type; in another it is not the field that is meant.
func (fd *field) takes(wire protowire.Type) bool {
	switch fd.label {
	case mapping:
		return wire == protowire.BytesType
	case list:
		return wire == protowire.BytesType || wire == fd.shape.wire // packed, or not
	}
	return wire == fd.shape.wire
}

// consume takes a value off data: a number's bits, or the bytes of the rest. n is negative where it cannot.
func consume(wire protowire.Type, data []byte) (bits uint64, chunk []byte, n int) {
	switch wire {
	case protowire.VarintType:
		bits, n = protowire.ConsumeVarint(data)
	case protowire.Fixed32Type:
		var short uint32
		short, n = protowire.ConsumeFixed32(data)
		bits = uint64(short)
	case protowire.Fixed64Type:
		bits, n = protowire.ConsumeFixed64(data)
	case protowire.BytesType:
		chunk, n = protowire.ConsumeBytes(data)
	default:
		n = -1 // a group, which no field is
	}
	return bits, chunk, n
}

func clean(n int) error { return protowire.ParseError(n) }

// read reads one value, or one piece of a list, into the field of v.
func (fd *field) read(v reflect.Value, wire protowire.Type, bits uint64, chunk []byte, depth int, filled map[protowire.Number]int) error {
	for _, i := range fd.index {
		if v = settle(v); v.Kind() == reflect.Pointer {
			return fmt.Errorf("%s, which is embedded and not exported, cannot be set", v.Type())
		}
		v = v.Field(i)
	}
	v = settle(v)
	switch fd.label {
	case mapping:
		return fd.readEntry(v, chunk, depth+1)
	case list:
		if !fd.shape.packs() || wire == fd.shape.wire {
			return fd.readElement(v, bits, chunk, depth, filled)
		}
		for len(chunk) > 0 {
			bits, _, n := consume(fd.shape.wire, chunk)
			if n < 0 {
				return clean(n)
			}
			chunk = chunk[n:]
			if err := fd.readElement(v, bits, nil, depth, filled); err != nil {
				return err
			}
		}
		return nil
	}
	return fd.shape.read(v, bits, chunk, depth)
}

// readElement reads the next element of a list. What an array has no place for is passed over, as encoding/json does.
func (fd *field) readElement(v reflect.Value, bits uint64, chunk []byte, depth int, filled map[protowire.Number]int) error {
	i := filled[fd.number]
	filled[fd.number]++
	if v.Kind() == reflect.Array {
		if i >= v.Len() {
			return nil
		}
	} else {
		v.Grow(1)
		v.SetLen(i + 1)
		v.Index(i).SetZero()
	}
	return fd.shape.read(settle(v.Index(i)), bits, chunk, depth)
}

// readEntry reads an entry of a map, a message of a key and a value. Either may be missing: it is the zero one then.
func (fd *field) readEntry(v reflect.Value, data []byte, depth int) error {
	key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
	into := settle(value)
	for len(data) > 0 {
		number, wire, n := protowire.ConsumeTag(data)
		if n < 0 {
			return clean(n)
		}
		data = data[n:]
		s, to := fd.key, key
		if number == 2 {
			s, to = fd.shape, into
		}
		if number > 2 || wire != s.wire {
			if n = protowire.ConsumeFieldValue(number, wire, data); n < 0 {
				return clean(n)
			}
			data = data[n:]
			continue
		}
		bits, chunk, n := consume(wire, data)
		if n < 0 {
			return clean(n)
		}
		data = data[n:]
		if err := s.read(to, bits, chunk, depth); err != nil {
			return err
		}
	}
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	v.SetMapIndex(key, value)
	return nil
}
