package vom

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// encoder writes one body after the other. It is for one goroutine at a time.
type encoder struct {
	codec *Codec
	buf   []byte // the value
	depth int

	root  *root
	types []byte               // the messages of types that were met inside anys
	ids   map[*wireType]uint64 // of those
	next  uint64
	table []uint64             // the ids of the types of anys, each once
	at    map[*wireType]uint64 // where in the table a type is
	sizes []int                // of the anys' values, in the order in which they begin
}

// keptBuffer is the largest buffer that is kept for the next body.
const keptBuffer = 64 << 10

// reset forgets the value, and what it took of memory above the usual.
func (e *encoder) reset() {
	e.buf, e.types, e.table, e.sizes = e.buf[:0], e.types[:0], e.table[:0], e.sizes[:0]
	if cap(e.buf)+cap(e.types)+8*cap(e.table)+8*cap(e.sizes) > keptBuffer {
		e.buf, e.types, e.table, e.sizes = nil, nil, nil, nil
	}
	e.depth, e.root, e.ids, e.at = 0, nil, nil, nil
}

// root is what the bodies of a Go type have in common.
type root struct {
	prefix []byte // the version and the messages of the types that the type is made of
	id     []byte // of the value's message
	ids    map[*wireType]uint64
	next   uint64
}

// rootOf gives t's root, and makes it when it is first asked for.
func rootOf(t *goType) *root {
	if r := t.root.Load(); r != nil {
		return r
	}
	d := definer{out: []byte{version}, ids: map[*wireType]uint64{}, next: firstID}
	id := d.define(t.wire)
	r := &root{prefix: d.out, id: appendInt(nil, int64(id)), ids: d.ids, next: d.next}
	t.root.Store(r)
	return r
}

// body appends v's body to dst.
func (e *encoder) body(dst []byte, v reflect.Value) ([]byte, error) {
	t, v, err := e.top(v)
	if err != nil {
		return nil, err
	}
	if t == nil {
		return append(dst, version, byte(zigzag(anyID)), 0, 0, 1, ctrlNil), nil
	}
	e.root = rootOf(t)
	e.next = e.root.next
	if err := e.value(t, v); err != nil {
		return nil, err
	}
	if len(e.buf) > maxLength {
		return nil, fmt.Errorf("%d bytes, the limit is %d", len(e.buf), maxLength)
	}
	dst = append(dst, e.root.prefix...)
	dst = append(dst, e.types...)
	dst = append(dst, e.root.id...)
	if t.wire.has&(hasAny|hasTypeObject) != 0 {
		dst = appendUint(dst, uint64(len(e.table)))
		for _, id := range e.table {
			dst = appendUint(dst, id)
		}
	}
	if t.wire.has&hasAny != 0 {
		dst = appendUint(dst, uint64(len(e.sizes)))
		for _, n := range e.sizes {
			dst = appendUint(dst, uint64(n))
		}
	}
	if t.wire.sized() {
		dst = appendUint(dst, uint64(len(e.buf)))
	}
	return append(dst, e.buf...), nil
}

// top finds the type of a whole value: that of what interfaces hold and pointers lead to, unless they are optional. It is nil for
// the nil of any.
func (e *encoder) top(v reflect.Value) (*goType, reflect.Value, error) {
	for range MaxDepth {
		switch v.Kind() {
		case reflect.Invalid:
			return nil, v, nil
		case reflect.Interface:
			v = v.Elem()
			continue
		}
		t, err := e.codec.typeOf(v.Type())
		switch {
		case err != nil:
			return nil, v, err
		case t.form == formError && v.Kind() == reflect.Pointer && v.IsNil():
			return nil, v, nil
		case t.form != formPointer:
			return t, v, nil
		}
		v = v.Elem() // Invalid for nil
	}
	return nil, v, errDeep
}

var errDeep = fmt.Errorf("more than %d values inside each other", MaxDepth)

func (e *encoder) enter() error {
	if e.depth++; e.depth > MaxDepth {
		return errDeep
	}
	return nil
}

// value appends v, of type t.
func (e *encoder) value(t *goType, v reflect.Value) error {
	switch t.form {
	case formBool:
		b := byte(0)
		if v.Bool() {
			b = 1
		}
		e.buf = append(e.buf, b)
	case formInt:
		e.buf = appendInt(e.buf, v.Int())
	case formUint:
		e.buf = appendUint(e.buf, v.Uint())
	case formFloat:
		e.buf = appendFloat(e.buf, v.Float())
	case formString:
		e.buf = appendString(e.buf, v.String())
	case formEnum:
		return e.enum(t, v)
	case formAny:
		return e.any(v)
	case formError:
		return e.error(t, v)
	case formOptional, formPointer:
		return e.pointer(t, v)
	default:
		if err := e.enter(); err != nil {
			return err
		}
		err := e.inside(t, v)
		e.depth--
		return err
	}
	return nil
}

// inside appends what has others inside.
func (e *encoder) inside(t *goType, v reflect.Value) error {
	switch t.form {
	case formSlice, formArray:
		return e.list(t, v)
	case formSet, formMap:
		return e.mapping(t, v)
	case formStruct:
		return e.structure(t, v)
	case formUnion:
		if v.IsNil() {
			v = reflect.Zero(t.cases[0].goes)
		} else {
			v = v.Elem()
		}
		for i := range t.cases {
			if t.cases[i].goes == v.Type() {
				return e.unionCase(t, i, v)
			}
		}
		return fmt.Errorf("type %s is not in the union %s", v.Type(), t.goes)
	case formUnionCase:
		return e.unionCase(t, t.index, v)
	case formTime:
		w := toWireTime(v.Interface().(time.Time))
		e.moment(w.Seconds, w.Nanos)
	case formDuration:
		w := toWireDuration(time.Duration(v.Int()))
		e.moment(w.Seconds, w.Nanos)
	case formComplex:
		c := v.Complex()
		e.floatField(0, real(c))
		e.floatField(1, imag(c))
		e.buf = append(e.buf, ctrlEnd)
	}
	return nil
}

func (e *encoder) unionCase(t *goType, i int, v reflect.Value) error {
	e.buf = appendUint(e.buf, uint64(i))
	return e.value(t.cases[i].typ, v.Field(0))
}

func (e *encoder) moment(seconds int64, nanos int32) {
	if seconds != 0 {
		e.buf = appendInt(append(e.buf, 0), seconds)
	}
	if nanos != 0 {
		e.buf = appendInt(append(e.buf, 1), int64(nanos))
	}
	e.buf = append(e.buf, ctrlEnd)
}

func (e *encoder) floatField(i byte, f float64) {
	if f != 0 {
		e.buf = appendFloat(append(e.buf, i), f)
	}
}

func (e *encoder) enum(t *goType, v reflect.Value) error {
	var i uint64
	if v.CanInt() {
		i = uint64(v.Int()) // a negative one is out of range
	} else {
		i = v.Uint()
	}
	if i >= uint64(len(t.wire.labels)) {
		return fmt.Errorf("type %s: %v is none of its %d labels", t.goes, v, len(t.wire.labels))
	}
	e.buf = appendUint(e.buf, i)
	return nil
}

func (e *encoder) list(t *goType, v reflect.Value) error {
	if t.form == formArray {
		e.buf = append(e.buf, 0)
	} else {
		e.buf = appendUint(e.buf, uint64(v.Len()))
	}
	if t.wire.bytes() && t.elem.form == formUint {
		if t.form == formSlice || v.CanAddr() {
			e.buf = append(e.buf, v.Bytes()...)
			return nil
		}
		for i := range v.Len() {
			e.buf = append(e.buf, byte(v.Index(i).Uint()))
		}
		return nil
	}
	if t.wire.bytes() { // by pointers
		for i := range v.Len() {
			var b byte
			if p := v.Index(i); !e.isZero(t.elem, p) {
				b = byte(target(p).Uint())
			}
			e.buf = append(e.buf, b)
		}
		return nil
	}
	for i := range v.Len() {
		if err := e.value(t.elem, v.Index(i)); err != nil {
			return err
		}
	}
	return nil
}

// target follows pointers.
func target(v reflect.Value) reflect.Value {
	for v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	return v
}

// entry is one of a map.
type entry struct {
	key  string // as it is encoded; of strings themselves
	elem reflect.Value
}

// mapping appends a map or set, sorted by keys: the strings, or else their encodings.
func (e *encoder) mapping(t *goType, v reflect.Value) error {
	e.buf = appendUint(e.buf, uint64(v.Len()))
	entries := make([]entry, 0, v.Len())
	start := len(e.buf)
	for iter := v.MapRange(); iter.Next(); {
		key := iter.Key()
		if t.floats && !key.Equal(key) {
			return fmt.Errorf("type %s: NaN as a key", t.goes)
		}
		n := entry{elem: reflect.Value{}}
		if t.form == formMap {
			n.elem = iter.Value()
		}
		if t.key.form == formString {
			n.key = key.String()
		} else {
			if err := e.value(t.key, key); err != nil {
				return err
			}
			n.key = string(e.buf[start:])
			e.buf = e.buf[:start]
		}
		entries = append(entries, n)
	}
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.key, b.key) })
	for _, n := range entries {
		if t.key.form == formString {
			e.buf = appendUint(e.buf, uint64(len(n.key)))
		}
		e.buf = append(e.buf, n.key...)
		if t.form == formMap {
			if err := e.value(t.elem, n.elem); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *encoder) structure(t *goType, v reflect.Value) error {
	for i := range t.fields {
		f := &t.fields[i]
		fv := v.Field(f.index)
		if e.isZero(f.typ, fv) {
			continue
		}
		e.buf = appendUint(e.buf, uint64(i))
		if err := e.value(f.typ, fv); err != nil {
			return err
		}
	}
	e.buf = append(e.buf, ctrlEnd)
	return nil
}

// pointer appends what v leads to. No other pointer than an optional can be nil in VDL.
func (e *encoder) pointer(t *goType, v reflect.Value) error {
	for v.Kind() == reflect.Pointer && v.Type() != t.elem.goes {
		if v.IsNil() && t.form == formOptional {
			e.buf = append(e.buf, ctrlNil)
			return nil
		}
		if v.IsNil() {
			v = reflect.Zero(t.elem.goes)
			break
		}
		v = v.Elem()
	}
	return e.value(t.elem, v)
}

// error appends an error, or nil.
func (e *encoder) error(t *goType, v reflect.Value) error {
	err := errorOf(v)
	if err == nil {
		e.buf = append(e.buf, ctrlNil)
		return nil
	}
	return e.value(t.elem, reflect.ValueOf(toWireError(err)))
}

// errorOf gives the error that v is, or points to, or nil. A nil pointer that is an error is taken for none.
func errorOf(v reflect.Value) error {
	if v.Kind() == reflect.Interface {
		v = v.Elem()
	}
	switch {
	case !v.IsValid(), v.Kind() == reflect.Pointer && v.IsNil():
		return nil
	case !v.Type().Implements(errorType):
		v = addressable(v).Addr()
	}
	return v.Interface().(error)
}

// addressable gives v, or a copy of it that has an address.
func addressable(v reflect.Value) reflect.Value {
	if v.CanAddr() {
		return v
	}
	p := reflect.New(v.Type()).Elem()
	p.Set(v)
	return p
}

// held gives the type and value that an interface holds, without pointers; nil for nil. An error keeps its own.
func (e *encoder) held(v reflect.Value) (*goType, reflect.Value, error) {
	t, v, err := e.top(v)
	if err != nil || t == nil || t.form != formOptional {
		return t, v, err
	}
	if v = target(v); !v.IsValid() {
		return nil, v, nil
	}
	return t.elem, v, nil
}

// any appends what an interface holds, its type and where its length stands.
func (e *encoder) any(v reflect.Value) error {
	t, v, err := e.held(v)
	if err != nil {
		return err
	}
	if t == nil {
		e.buf = append(e.buf, ctrlNil)
		return nil
	}
	n := len(e.sizes)
	e.buf = appendUint(e.buf, e.typeIndex(t.wire))
	e.buf = appendUint(e.buf, uint64(n))
	e.sizes = append(e.sizes, 0)
	start := len(e.buf)
	err = e.value(t, v)
	e.sizes[n] = len(e.buf) - start
	return err
}

// typeIndex gives the index of w in the table of types, and defines w if it is not.
func (e *encoder) typeIndex(w *wireType) uint64 {
	if i, ok := e.at[w]; ok {
		return i
	}
	id, ok := e.root.ids[w]
	if !ok {
		if e.ids == nil {
			e.ids = map[*wireType]uint64{}
		}
		d := definer{out: e.types, known: e.root.ids, ids: e.ids, next: e.next}
		id = d.define(w)
		e.types, e.next = d.out, d.next
	}
	if e.at == nil {
		e.at = map[*wireType]uint64{}
	}
	i := uint64(len(e.table))
	e.at[w] = i
	e.table = append(e.table, id)
	return i
}

// isZero reports whether v is a zero value, which is not sent as a field.
func (e *encoder) isZero(t *goType, v reflect.Value) bool {
	switch t.isZero {
	case zeroByMethod:
		return addressable(v).Addr().Interface().(isZeroer).IsZero()
	case zeroByVDL:
		return addressable(v).Addr().Interface().(vdlIsZeroer).VDLIsZero()
	}
	switch t.form {
	case formFloat:
		return v.Float() == 0 // also -0
	case formComplex:
		return v.Complex() == 0
	case formSlice, formSet, formMap:
		return v.Len() == 0
	case formArray:
		if t.elem.form <= formUint && t.elem.isZero == zeroByValue {
			return v.IsZero()
		}
		for i := range v.Len() {
			if !e.isZero(t.elem, v.Index(i)) {
				return false
			}
		}
		return true
	case formStruct:
		for i := range t.fields {
			if f := &t.fields[i]; !e.isZero(f.typ, v.Field(f.index)) {
				return false
			}
		}
		return true
	case formUnion:
		return v.IsNil() || v.Elem().Type() == t.cases[0].goes && e.isZero(t.cases[0].typ, v.Elem().Field(0))
	case formUnionCase:
		return t.index == 0 && e.isZero(t.cases[0].typ, v.Field(0))
	case formTime:
		return v.Interface().(time.Time).IsZero()
	case formError:
		return v.Kind() == reflect.Interface && v.IsNil() || errorOf(v) == nil
	case formAny:
		t, _, err := e.held(v)
		return err == nil && t == nil
	case formOptional, formPointer:
		return e.isZeroPointer(t, v)
	}
	return v.IsZero()
}

func (e *encoder) isZeroPointer(t *goType, v reflect.Value) bool {
	for v.Kind() == reflect.Pointer && v.Type() != t.elem.goes {
		if v.IsNil() {
			return true
		}
		v = v.Elem()
	}
	return t.form == formPointer && e.isZero(t.elem, v)
}

// definer writes type messages.
type definer struct {
	out   []byte
	known map[*wireType]uint64 // the ids of types that were defined before
	ids   map[*wireType]uint64
	next  uint64
	open  []*wireType // those whose parts are being defined
}

// define gives t's id, and appends the messages of t and of what it is made of where they were not yet. A type gets its id
// before its parts do; its message comes after theirs.
func (d *definer) define(t *wireType) uint64 {
	if id := builtinID(t); id != 0 {
		return id
	}
	if id, ok := d.known[t]; ok {
		return id
	}
	if id, ok := d.ids[t]; ok {
		return id
	}
	id := d.next
	d.next++
	d.ids[t] = id
	incomplete := d.leadsUp(t)
	d.open = append(d.open, t)
	t.parts(func(p *wireType) { d.define(p) })
	d.open = d.open[:len(d.open)-1]
	if incomplete {
		d.out = append(d.out, ctrlIncomplete)
	}
	d.out = appendInt(d.out, -int64(id))
	text := d.definition(t)
	d.out = appendUint(d.out, uint64(len(text)))
	d.out = append(d.out, text...)
	return id
}

// leadsUp reports whether t leads to one of the types whose parts are being defined.
func (d *definer) leadsUp(t *wireType) bool {
	if len(d.open) == 0 {
		return false
	}
	seen := map[*wireType]bool{}
	var visit func(*wireType) bool
	visit = func(t *wireType) (found bool) {
		if seen[t] {
			return false
		}
		seen[t] = true
		t.parts(func(p *wireType) { found = found || slices.Contains(d.open, p) || visit(p) })
		return found
	}
	return visit(t)
}

// definition gives t's definition: a union of structs, whose fields are sent unless they are zero.
func (d *definer) definition(t *wireType) []byte {
	out := []byte{0}
	for i := range forms {
		if forms[i].form == t.kind {
			out[0] = byte(i)
		}
	}
	if t.name != "" {
		out = appendString(append(out, 0), t.name)
	}
	switch t.kind {
	case kindEnum:
		out = appendUint(append(out, 1), uint64(len(t.labels)))
		for _, l := range t.labels {
			out = appendString(out, l)
		}
	case kindStruct, kindUnion:
		if len(t.fields) > 0 {
			out = appendUint(append(out, 1), uint64(len(t.fields)))
		}
		for _, f := range t.fields {
			out = appendString(append(out, 0), f.name)
			out = append(appendUint(append(out, 1), d.define(f.typ)), ctrlEnd)
		}
	case kindArray, kindList, kindSet, kindMap, kindOptional:
		out = append(out, 1)
		t.parts(func(p *wireType) { out = append(appendUint(out, d.define(p)), 2) })
		out = out[:len(out)-1]
		if t.kind == kindArray {
			out = appendUint(append(out, 2), uint64(t.size))
		}
	default: // a bool, number or string with a name
		out = appendUint(append(out, 1), builtinID(&wireType{kind: t.kind}))
	}
	return append(out, ctrlEnd)
}
