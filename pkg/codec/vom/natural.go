package vom

import "reflect"

// intoInterface reads a value into an interface, or a struct or union into a map.
func (r *reader) intoInterface(p *plan, v reflect.Value) error {
	start := r.pos
	x, err := r.natural(p)
	if err != nil {
		return err
	}
	if x == nil {
		v.SetZero()
		return nil
	}
	rv := reflect.ValueOf(x)
	if v.Kind() == reflect.Interface && v.NumMethod() > 0 && !rv.Type().Implements(v.Type()) {
		return failAt(start, p.wire, "it does not go into %s", v.Type())
	}
	v.Set(rv)
	return nil
}

// The memory of what is read into an interface, as it counts.
const (
	boxed      = 4 * 16 // a value behind an interface
	mapped     = 4 * 96 // a map
	mappedPart = 4 * 48 // an entry of a map
)

// natural reads a value into the Go type that is natural for it.
func (r *reader) natural(p *plan) (any, error) {
	if err := r.spend(p.wire, 1, boxed); err != nil {
		return nil, err
	}
	switch p.wire.kind {
	case kindBool:
		return r.bool(p.wire)
	case kindString:
		b, err := r.text(p.wire)
		return string(b), err
	case kindEnum, kindTypeObject:
		return r.label(p.wire)
	case kindAny:
		w, err := r.any()
		if err != nil || w == nil {
			return nil, err
		}
		inner, err := r.planFor(w, p.typ)
		if err != nil {
			return nil, err
		}
		return r.natural(inner)
	case kindOptional:
		if r.skipNil() {
			return nil, nil
		}
		return r.natural(p.elem)
	case kindArray, kindList, kindSet, kindMap, kindStruct, kindUnion:
		return r.naturalParts(p)
	}
	n, err := r.number(p.wire)
	return n.as(p.wire.kind), err
}

// as gives the number in the Go type of its kind.
func (n number) as(k kind) any {
	switch k {
	case kindByte:
		return byte(n.u)
	case kindUint16:
		return uint16(n.u)
	case kindUint32:
		return uint32(n.u)
	case kindInt8:
		return int8(n.i)
	case kindInt16:
		return int16(n.i)
	case kindInt32:
		return int32(n.i)
	case kindFloat32:
		return float32(n.f)
	}
	return n.value()
}

func (r *reader) naturalParts(p *plan) (any, error) {
	switch {
	case p.wire.kind == kindUnion, p.wire.kind == kindStruct && p.elem == nil:
		return r.naturalFields(p)
	case p.key != nil:
		return r.naturalEntries(p)
	}
	to := reflect.New(p.elem.typ.goes).Elem()
	if err := r.spend(p.wire, 1, boxed); err != nil {
		return nil, err
	}
	err := r.value(p.elem, to)
	return filled(to), err
}

// filled gives what v holds, but no list or map that is nil.
func filled(v reflect.Value) any {
	switch {
	case v.Kind() == reflect.Slice && v.IsNil():
		v.Set(reflect.MakeSlice(v.Type(), 0, 0))
	case v.Kind() == reflect.Map && v.IsNil():
		v.Set(reflect.MakeMap(v.Type()))
	}
	return v.Interface()
}

// naturalFields reads a struct, with all its fields, or a union.
func (r *reader) naturalFields(p *plan) (any, error) {
	if err := r.enter(p.wire); err != nil {
		return nil, err
	}
	if err := r.spend(p.wire, 1, mapped); err != nil {
		return nil, err
	}
	union := p.wire.kind == kindUnion
	m := make(map[string]any)
	for {
		if !union {
			done, err := r.end(p.wire)
			if err != nil {
				return nil, err
			}
			if done {
				break
			}
		}
		i, err := r.index(p.wire, len(p.fields), "field")
		if err != nil {
			return nil, err
		}
		if m[p.wire.fields[i].name], err = r.natural(p.fields[i].plan); err != nil {
			return nil, err
		}
		if union {
			break
		}
	}
	if !union {
		if err := r.fillIn(p, m); err != nil {
			return nil, err
		}
	}
	r.depth--
	return m, r.spend(p.wire, len(m), mappedPart)
}

// fillIn gives the fields that were not sent their zero values.
func (r *reader) fillIn(p *plan, m map[string]any) error {
	for i := range p.fields {
		name := p.wire.fields[i].name
		if _, ok := m[name]; ok {
			continue
		}
		zero, err := r.zero(p.fields[i].plan)
		if err != nil {
			return err
		}
		m[name] = zero
	}
	return nil
}

// naturalEntries reads a set or map whose keys cannot be those of a Go map without a type of their own: as a list, of keys or of pairs.
func (r *reader) naturalEntries(p *plan) (any, error) {
	n, err := r.begin(p.wire)
	if err != nil {
		return nil, err
	}
	if p.elem != nil { // they are lists inside a list
		if err := r.enter(p.wire); err != nil {
			return nil, err
		}
		defer func() { r.depth-- }()
	}
	list := []any{}
	for range n {
		if err := r.spend(p.wire, 1, 4*boxed); err != nil {
			return nil, err
		}
		key, err := r.natural(p.key)
		if err != nil {
			return nil, err
		}
		if p.elem == nil {
			list = append(list, key)
			continue
		}
		elem, err := r.natural(p.elem)
		if err != nil {
			return nil, err
		}
		list = append(list, []any{key, elem})
	}
	r.depth--
	return list, nil
}

// zero gives the natural zero value of a type, as it would be read.
func (r *reader) zero(p *plan) (any, error) {
	if err := r.spend(p.wire, 1, boxed); err != nil {
		return nil, err
	}
	switch p.wire.kind {
	case kindAny, kindOptional:
		return nil, nil
	case kindEnum:
		return p.wire.labels[0], nil
	case kindTypeObject:
		return kindAny.String(), nil
	case kindBool, kindString:
		return reflect.Zero(naturalScalars[p.wire.kind]).Interface(), nil
	case kindArray, kindList, kindSet, kindMap, kindStruct, kindUnion:
		if err := r.enter(p.wire); err != nil {
			return nil, err
		}
		zero, err := r.zeroParts(p)
		r.depth--
		return zero, err
	}
	return reflect.Zero(naturalScalars[p.wire.kind]).Interface(), nil
}

func (r *reader) zeroParts(p *plan) (any, error) {
	switch {
	case p.wire.kind == kindArray:
		return r.zeroArray(p)
	case p.wire.kind == kindUnion:
		zero, err := r.zero(p.fields[0].plan)
		return map[string]any{p.wire.fields[0].name: zero}, err
	case p.wire.kind == kindStruct && p.elem == nil:
		if err := r.spend(p.wire, len(p.fields), mappedPart); err != nil {
			return nil, err
		}
		m := make(map[string]any, len(p.fields))
		return m, r.fillIn(p, m)
	case p.key != nil:
		return []any{}, nil
	case p.elem.op == opError:
		return &WireError{}, nil
	}
	return filled(reflect.New(p.elem.typ.goes).Elem()), nil
}

func (r *reader) zeroArray(p *plan) (any, error) {
	t := p.elem.typ.goes
	if err := r.spend(p.wire, p.wire.size, 4*t.Elem().Size()); err != nil {
		return nil, err
	}
	list := reflect.MakeSlice(t, p.wire.size, p.wire.size)
	if elem := p.wire.elem; elem.kind == kindEnum || elem.kind == kindTypeObject || t.Elem() == anyGoType {
		for i := range p.wire.size {
			zero, err := r.zero(p.elem.elem)
			if err != nil {
				return nil, err
			}
			if zero != nil {
				list.Index(i).Set(reflect.ValueOf(zero))
			}
		}
	}
	return list.Interface(), nil
}
