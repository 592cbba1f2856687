package vom

import (
	"math"
	"reflect"
)

// body reads a body into v.
func (r *reader) body(t *goType, v reflect.Value) error {
	if b := r.data[0]; b != version {
		return r.fail(nil, "version %#x, want %#x", b, version)
	}
	r.pos = 1
	if err := r.readSection(); err != nil {
		return err
	}
	start := r.pos
	id, err := r.uint(nil)
	if err != nil {
		return err
	}
	w := r.section.typ(id >> 1)
	if w == nil {
		return failAt(start, nil, "a value of the type %d, which is no type or was left incomplete", id>>1)
	}
	if err := r.head(w); err != nil {
		return err
	}
	p, err := r.planFor(w, t)
	if err != nil {
		return err
	}
	if err := r.value(p, v); err != nil {
		return err
	}
	if w.sized() && r.left() > 0 {
		return r.fail(w, "the value is shorter than its message, by %d", r.left())
	}
	return nil
}

// head reads the tables, and the message's length, after which no more is read.
func (r *reader) head(w *wireType) error {
	if w.has&(hasAny|hasTypeObject) != 0 {
		if err := r.readTable(w); err != nil {
			return err
		}
	}
	if w.has&hasAny != 0 {
		n, err := r.length(w, "count of anys")
		if err != nil {
			return err
		}
		r.anys = uint64(n)
		for range n { // what they are is found out by reading them
			if _, err := r.uint(w); err != nil {
				return err
			}
		}
	}
	if !w.sized() {
		return nil
	}
	n, err := r.length(w, "length of the message")
	r.data = r.data[:r.pos+n]
	return err
}

// readTable reads the table of the types that anys have.
func (r *reader) readTable(w *wireType) error {
	start := r.pos
	n, err := r.length(w, "count of types")
	if err != nil {
		return err
	}
	if n > len(r.section.types)+firstID {
		return failAt(start, w, "a table of %d types, of which there are %d", n, len(r.section.types))
	}
	r.table = make([]*wireType, n)
	for i := range r.table {
		start := r.pos
		id, err := r.uint(w)
		if err != nil {
			return err
		}
		if r.table[i] = r.section.typ(id); r.table[i] == nil {
			return failAt(start, w, "the type %d in the table is no type or was left incomplete", id)
		}
	}
	return nil
}

// value reads a value into v, whatever v held.
func (r *reader) value(p *plan, v reflect.Value) error {
	switch p.op {
	case opBool:
		b, err := r.bool(p.wire)
		v.SetBool(b)
		return err
	case opInt, opUint, opFloat:
		return r.numberInto(p, v)
	case opString:
		b, err := r.text(p.wire)
		v.SetString(string(b))
		return err
	case opLabel, opTypeText:
		s, err := r.label(p.wire)
		v.SetString(s)
		return err
	case opEnum:
		return r.enum(p, v)
	case opBytes:
		return r.bytes(p, v)
	case opList:
		return r.list(p, v)
	case opSet, opMap:
		return r.mapping(p, v)
	case opStruct:
		return r.structure(p, v)
	case opUnion:
		return r.union(p, v)
	case opPointer:
		return r.pointer(p, v)
	case opOptional:
		if r.pos < len(r.data) && r.data[r.pos] == ctrlNil {
			return r.fail(p.wire, "nil does not go into %s", p.typ.goes)
		}
		return r.value(p.elem, v)
	case opAny:
		return r.dynamic(p, v)
	case opNatural:
		return r.intoInterface(p, v)
	}
	return r.special(p, v)
}

func (r *reader) numberInto(p *plan, v reflect.Value) error {
	start := r.pos
	n, err := r.number(p.wire)
	if err != nil {
		return err
	}
	fits := false
	switch p.op {
	case opInt:
		var i int64
		if i, fits = n.toInt(); fits {
			if fits = !v.OverflowInt(i); fits {
				v.SetInt(i)
			}
		}
	case opUint:
		var u uint64
		if u, fits = n.toUint(); fits {
			if fits = !v.OverflowUint(u); fits {
				v.SetUint(u)
			}
		}
	case opFloat:
		var f float64
		if f, fits = n.toFloat(p.typ.goes.Bits()); fits {
			v.SetFloat(f)
		}
	}
	if !fits {
		return failAt(start, p.wire, "%v does not fit %s", n.value(), p.typ.goes)
	}
	return nil
}

func (n number) value() any {
	switch n.class {
	case 'u':
		return n.u
	case 'i':
		return n.i
	}
	return n.f
}

// toInt gives the number, and whether it is one without loss.
func (n number) toInt() (int64, bool) {
	switch n.class {
	case 'i':
		return n.i, true
	case 'u':
		return int64(n.u), n.u <= math.MaxInt64
	}
	if n.f < -1<<63 || n.f >= 1<<63 || n.f != math.Trunc(n.f) { // also a NaN
		return 0, false
	}
	return int64(n.f), true
}

func (n number) toUint() (uint64, bool) {
	switch n.class {
	case 'i':
		return uint64(n.i), n.i >= 0
	case 'u':
		return n.u, true
	}
	if n.f < 0 || n.f >= 1<<64 || n.f != math.Trunc(n.f) {
		return 0, false
	}
	return uint64(n.f), true
}

// toFloat takes integers up to where each has a float of its own. A float64 is rounded to a float32, unless it is beyond.
func (n number) toFloat(bits int) (float64, bool) {
	most := int64(1) << 53
	if bits == 32 {
		most = 1 << 24
	}
	switch n.class {
	case 'i':
		return float64(n.i), -most <= n.i && n.i <= most
	case 'u':
		return float64(n.u), n.u <= uint64(most)
	}
	return n.f, bits == 64 || !tooLarge(n.f)
}

// label reads an enum's label, or a type's text.
func (r *reader) label(w *wireType) (string, error) {
	if w.kind == kindEnum {
		i, err := r.index(w, len(w.labels), "label")
		if err != nil {
			return "", err
		}
		return w.labels[i], nil
	}
	i, err := r.index(w, len(r.table), "type")
	if err != nil {
		return "", err
	}
	text, ok := r.table[i].text()
	if !ok {
		return "", r.fail(w, "the text of a type is longer than %d bytes", maxText)
	}
	return text, r.spend(w, len(text), 4)
}

func (r *reader) enum(p *plan, v reflect.Value) error {
	start := r.pos
	var label string
	var err error
	if p.wire.kind == kindEnum {
		label, err = r.label(p.wire)
	} else {
		var b []byte
		b, err = r.text(p.wire)
		label = string(b)
	}
	if err != nil {
		return err
	}
	i, ok := p.labels[label]
	switch {
	case !ok:
		return failAt(start, p.wire, "%s is no label of %s", clip(label), p.typ.goes)
	case v.CanInt():
		v.SetInt(int64(i))
	default:
		v.SetUint(uint64(i))
	}
	return nil
}

// bytes reads raw bytes into a list or array of bytes.
func (r *reader) bytes(p *plan, v reflect.Value) error {
	n, err := r.begin(p.wire)
	if err != nil {
		return err
	}
	r.depth--
	if p.typ.form == formSlice {
		if n == 0 {
			v.SetZero()
			return nil
		}
		if err := r.spend(p.wire, n, 1); err != nil {
			return err
		}
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		copy(v.Bytes(), r.take(n))
		return nil
	}
	if n != v.Len() {
		return r.fail(p.wire, "%d bytes do not go into %s", n, p.typ.goes)
	}
	copy(v.Bytes(), r.take(n))
	return nil
}

// firstGrowth is how many bytes of elements are made before it is known that they come.
const firstGrowth = 1 << 10

func (r *reader) list(p *plan, v reflect.Value) error {
	n, err := r.begin(p.wire)
	if err != nil {
		return err
	}
	slice := p.typ.form == formSlice
	if !slice && n != v.Len() {
		return r.fail(p.wire, "%d elements do not go into %s", n, p.typ.goes)
	}
	if slice {
		v.SetZero()
		if err := r.spend(p.wire, n, r.weight(p.typ.goes.Elem())); err != nil {
			return err
		}
	}
	raw := p.wire.bytes()
	for i := range n {
		if slice && i >= v.Len() {
			grow(v, n)
		}
		r.raw = raw
		if err := r.value(p.elem, v.Index(i)); err != nil {
			return err
		}
	}
	r.depth--
	return nil
}

// weight is what an element counts. What an interface holds counts fourfold: there a peer decides what is made.
func (r *reader) weight(t reflect.Type) uintptr {
	if t.Kind() == reflect.Interface {
		return 4 * t.Size()
	}
	return t.Size()
}

// grow makes v longer, up to n elements.
func grow(v reflect.Value, n int) {
	now := v.Len()
	to := min(n, max(2*now, firstGrowth/max(int(v.Type().Elem().Size()), 1), 4))
	longer := reflect.MakeSlice(v.Type(), to, to)
	reflect.Copy(longer, v)
	v.Set(longer)
}

func (r *reader) mapping(p *plan, v reflect.Value) error {
	n, err := r.begin(p.wire)
	if err != nil {
		return err
	}
	if n == 0 {
		v.SetZero()
		r.depth--
		return nil
	}
	t := p.typ.goes
	if err := r.spend(p.wire, max(n, 8), r.weight(t.Key())+r.weight(t.Elem())); err != nil {
		return err
	}
	m := reflect.MakeMapWithSize(t, min(n, firstGrowth/int(t.Key().Size()+t.Elem().Size()+1)))
	v.Set(m)
	key, elem := reflect.New(t.Key()).Elem(), reflect.New(t.Elem()).Elem()
	for range n {
		start := r.pos
		if err := r.value(p.key, key); err != nil {
			return err
		}
		if p.typ.floats && !key.Equal(key) {
			return failAt(start, p.wire, "NaN as a key")
		}
		if p.op == opMap {
			if err := r.value(p.elem, elem); err != nil {
				return err
			}
		}
		m.SetMapIndex(key, elem)
	}
	r.depth--
	return nil
}

func (r *reader) structure(p *plan, v reflect.Value) error {
	if err := r.enter(p.wire); err != nil {
		return err
	}
	if p.typ.hidden {
		for i := range p.typ.fields {
			v.Field(p.typ.fields[i].index).SetZero()
		}
	} else {
		v.SetZero()
	}
	for {
		done, err := r.end(p.wire)
		if err != nil || done {
			r.depth--
			return err
		}
		i, err := r.index(p.wire, len(p.fields), "field")
		if err != nil {
			return err
		}
		if f := &p.fields[i]; f.plan != nil {
			err = r.value(f.plan, v.Field(f.index))
		} else {
			err = r.skip(p.wire.fields[i].typ)
		}
		if err != nil {
			return err
		}
	}
}

func (r *reader) union(p *plan, v reflect.Value) error {
	if err := r.enter(p.wire); err != nil {
		return err
	}
	start := r.pos
	i, err := r.index(p.wire, len(p.fields), "field")
	if err != nil {
		return err
	}
	f := p.fields[i]
	if f.plan == nil || p.typ.form == formUnionCase && p.typ.index != f.index {
		return failAt(start, p.wire, "its field %s does not go into %s", clip(p.wire.fields[i].name), p.typ.goes)
	}
	to := v
	if p.typ.form == formUnion {
		goes := p.typ.cases[f.index].goes
		if err := r.spend(p.wire, 1, goes.Size()); err != nil {
			return err
		}
		to = reflect.New(goes).Elem()
	}
	if err := r.value(f.plan, to.Field(0)); err != nil {
		return err
	}
	if p.typ.form == formUnion {
		v.Set(to)
	}
	r.depth--
	return nil
}

func (r *reader) pointer(p *plan, v reflect.Value) error {
	if p.wire.kind == kindOptional && p.elem.wire != p.wire && r.skipNil() {
		v.SetZero()
		return nil
	}
	for v.Kind() == reflect.Pointer && v.Type() != p.typ.elem.goes {
		to := v.Type().Elem()
		if err := r.spend(p.wire, 1, to.Size()); err != nil {
			return err
		}
		v.Set(reflect.New(to))
		v = v.Elem()
	}
	return r.value(p.elem, v)
}

// dynamic reads an any into a Go type.
func (r *reader) dynamic(p *plan, v reflect.Value) error {
	start := r.pos
	w, err := r.any()
	if err != nil {
		return err
	}
	if w == nil {
		switch p.typ.form {
		case formOptional, formPointer, formError, formUnion:
		default:
			if r.depth == 0 { // as the whole value; a part is left out
				return failAt(start, p.wire, "nil does not go into %s", p.typ.goes)
			}
		}
		v.SetZero()
		return nil
	}
	inner, err := r.planFor(w, p.typ)
	if err != nil {
		return err
	}
	return r.value(inner, v)
}

// special reads what Go has types of its own for.
func (r *reader) special(p *plan, v reflect.Value) error {
	if p.op == opError && p.wire.kind == kindOptional && r.skipNil() {
		if v.Kind() == reflect.Struct {
			return r.fail(p.wire, "nil does not go into %s", p.typ.goes)
		}
		v.SetZero()
		return nil
	}
	start := r.pos
	wire := reflect.New(p.elem.typ.goes)
	if err := r.spend(p.wire, 1, wire.Type().Elem().Size()); err != nil {
		return err
	}
	if err := r.value(p.elem, wire.Elem()); err != nil {
		return err
	}
	switch w := wire.Interface().(type) {
	case *wireTime:
		v.Set(reflect.ValueOf(w.time()))
	case *wireDuration:
		d, ok := w.duration()
		if !ok {
			return failAt(start, p.wire, "%d seconds do not fit %s", w.Seconds, p.typ.goes)
		}
		v.SetInt(int64(d))
	case *wireComplex64:
		v.SetComplex(complex(float64(w.Real), float64(w.Imag)))
	case *wireComplex128:
		v.SetComplex(complex(w.Real, w.Imag))
	case *wireError:
		if v.Kind() == reflect.Struct {
			v.Set(reflect.ValueOf(*w.plain()))
		} else {
			v.Set(reflect.ValueOf(w.plain()))
		}
	}
	return nil
}
