package vom

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/cb02dfca/micro/pkg/codec"
)

// op is what a plan does.
type op uint8

const (
	opBool op = iota + 1
	opInt
	opUint
	opFloat
	opString
	opTypeText // a typeobject's text
	opEnum     // a label into an enum
	opLabel    // a label into a string
	opBytes
	opList
	opSet
	opMap
	opStruct
	opUnion
	opPointer  // what it leads to is made anew
	opOptional // into what cannot be nil
	opAny      // finds out what comes
	opNatural  // into an interface
	opTime
	opDuration
	opComplex
	opError
)

// plan is how values of a type are read into a Go type. It is not changed once it was made.
type plan struct {
	op     op
	wire   *wireType
	typ    *goType
	key    *plan
	elem   *plan
	fields []planField // of a struct or union
	labels map[string]int
}

type planField struct {
	index int   // of the Go type's field or case
	plan  *plan // nil: the field is skipped
}

// mismatch is a type that cannot be read into a Go type.
type mismatch struct {
	field    string
	wire     *wireType
	goes     reflect.Type
	disjoint bool // both are structs
}

func (e *mismatch) Error() string {
	text := fmt.Sprintf("%s does not go into %s", e.wire, e.goes)
	if e.disjoint {
		text += ": they have no field in common"
	}
	return text
}

// planFor gives the plan for w into t, and makes it if need be.
func (r *reader) planFor(w *wireType, t *goType) (*plan, error) {
	s, key := r.section, planKey{w, t.goes}
	s.mu.RLock()
	p := s.plans[key]
	s.mu.RUnlock()
	if p != nil {
		return p, nil
	}
	m := planner{codec: r.codec, section: s, made: map[planKey]*plan{}}
	p, err := m.plan(w, t)
	var bad *mismatch
	switch {
	case errors.As(err, &bad):
		e := &Error{Offset: r.pos, Type: w.String(), Field: bad.field, reason: bad.Error()}
		if bad.wire == w {
			e.reason = strings.TrimPrefix(e.reason, e.Type+" ")
		}
		return nil, e
	case err != nil:
		return nil, codec.Unsupported("codec/vom: at offset %d: %w", r.pos, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, p := range m.made {
		if s.plans[k] == nil {
			s.plans[k] = p
		}
	}
	return p, nil
}

// planner makes a plan and those that it is made of. Types that lead to themselves find themselves in made.
type planner struct {
	codec   *Codec
	section *section
	made    map[planKey]*plan
}

// plan looks at what holds values first: pointers, interfaces, optional and any.
func (m *planner) plan(w *wireType, t *goType) (*plan, error) {
	key := planKey{w, t.goes}
	if p := m.made[key]; p != nil {
		return p, nil
	}
	p := &plan{wire: w, typ: t}
	m.made[key] = p
	var err error
	switch {
	case t.form == formAny:
		p.op = opNatural
		err = m.natural(p)
	case w.kind == kindAny:
		p.op = opAny
	case t.form == formOptional, t.form == formPointer:
		p.op = opPointer
		if w.kind == kindOptional && t.elem.form != formError {
			w = w.elem // nil is looked for here
		}
		p.elem, err = m.plan(w, t.elem)
	case t.form == formError:
		err = m.error(p)
	case w.kind == kindOptional:
		p.op = opOptional
		p.elem, err = m.plan(w.elem, t)
	case t.form == formTime, t.form == formDuration, t.form == formComplex:
		p.op = map[form]op{formTime: opTime, formDuration: opDuration, formComplex: opComplex}[t.form]
		p.elem, err = m.plan(w, t.elem)
		if bad, ok := err.(*mismatch); ok && bad.field == "" {
			bad.goes = t.goes
		}
	default:
		err = m.direct(p)
	}
	return p, err
}

func (m *planner) error(p *plan) (err error) {
	if into := p.typ.goes; into != reflect.TypeFor[WireError]() && !reflect.TypeFor[*WireError]().AssignableTo(into) {
		return fmt.Errorf("type %s: of an error nothing but error and *WireError can be read", into)
	}
	p.op = opError
	w := p.wire
	if w.kind == kindOptional {
		w = w.elem
	}
	p.elem, err = m.plan(w, p.typ.elem.elem) // the struct wireError
	return err
}

// direct plans a type into a Go type of its kind.
func (m *planner) direct(p *plan) error {
	w, t := p.wire, p.typ
	ok := false
	switch {
	case w.kind == kindBool:
		p.op, ok = opBool, t.form == formBool
	case w.kind.scalar() && w.kind != kindString:
		p.op, ok = map[form]op{formInt: opInt, formUint: opUint, formFloat: opFloat}[t.form], t.form >= formInt && t.form <= formFloat
	case w.kind == kindString && t.form == formString:
		p.op, ok = opString, true
	case w.kind == kindTypeObject:
		p.op, ok = opTypeText, t.form == formString
	case w.kind == kindEnum && t.form == formString:
		p.op, ok = opLabel, true
	case (w.kind == kindEnum || w.kind == kindString) && t.form == formEnum:
		p.op, ok = opEnum, true
		p.labels = make(map[string]int, len(t.wire.labels))
		for i, l := range t.wire.labels {
			p.labels[l] = i
		}
	case (w.kind == kindList || w.kind == kindArray) && (t.form == formSlice || t.form == formArray):
		return m.list(p)
	case w.kind == kindSet && t.form == formSet, w.kind == kindMap && t.form == formMap:
		return m.mapping(p)
	case w.kind == kindStruct && t.form == formStruct:
		return m.structure(p)
	case w.kind == kindUnion && (t.form == formUnion || t.form == formUnionCase):
		return m.union(p)
	case (w.kind == kindStruct || w.kind == kindUnion) && t.goes == naturalMap:
		p.op = opNatural
		return m.parts(p)
	}
	if !ok {
		return &mismatch{wire: w, goes: t.goes}
	}
	return nil
}

func (m *planner) list(p *plan) (err error) {
	p.op = opList
	if p.wire.kind == kindArray && p.typ.form == formArray && p.wire.size != p.typ.wire.size {
		return &mismatch{wire: p.wire, goes: p.typ.goes}
	}
	if p.wire.bytes() && p.typ.wire.bytes() && p.typ.elem.form == formUint {
		p.op = opBytes
		return nil
	}
	p.elem, err = m.plan(p.wire.elem, p.typ.elem)
	return err
}

func (m *planner) mapping(p *plan) (err error) {
	p.op = opSet
	if p.key, err = m.plan(p.wire.key, p.typ.key); err != nil || p.wire.kind == kindSet {
		return err
	}
	p.op = opMap
	p.elem, err = m.plan(p.wire.elem, p.typ.elem)
	return err
}

func (m *planner) structure(p *plan) error {
	p.op = opStruct
	known, common := make(map[string]int, len(p.typ.fields)), false
	for i, f := range p.typ.fields {
		known[f.name] = i
	}
	p.fields = make([]planField, len(p.wire.fields))
	for i, f := range p.wire.fields {
		at, ok := known[f.name]
		if !ok {
			continue
		}
		common = true
		to := p.typ.fields[at]
		inner, err := m.plan(f.typ, to.typ)
		if err != nil {
			return within(f.name, err)
		}
		p.fields[i] = planField{to.index, inner}
	}
	if !common && len(known) > 0 && len(p.fields) > 0 {
		return &mismatch{wire: p.wire, goes: p.typ.goes, disjoint: true}
	}
	return nil
}

// within tells in which field a mismatch is.
func within(field string, err error) error {
	var bad *mismatch
	if errors.As(err, &bad) {
		if bad.field != "" {
			field += "." + bad.field
		}
		bad.field = field
	}
	return err
}

func (m *planner) union(p *plan) error {
	p.op = opUnion
	p.fields = make([]planField, len(p.wire.fields))
	for i, f := range p.wire.fields {
		for at, c := range p.typ.cases {
			if c.name != f.name {
				continue
			}
			inner, err := m.plan(f.typ, c.typ)
			if err != nil {
				return within(f.name, err)
			}
			p.fields[i] = planField{at, inner}
		}
	}
	return nil
}

// naturalMap is what a struct and a union are read into without a Go type of their own.
var naturalMap = reflect.TypeFor[map[string]any]()

// naturalScalars are the Go types that scalars and the like are read into where there is no other.
var naturalScalars = map[kind]reflect.Type{
	kindBool: reflect.TypeFor[bool](), kindByte: reflect.TypeFor[byte](), kindString: reflect.TypeFor[string](),
	kindUint16: reflect.TypeFor[uint16](), kindUint32: reflect.TypeFor[uint32](), kindUint64: reflect.TypeFor[uint64](),
	kindInt8: reflect.TypeFor[int8](), kindInt16: reflect.TypeFor[int16](), kindInt32: reflect.TypeFor[int32](),
	kindInt64:   reflect.TypeFor[int64](),
	kindFloat32: reflect.TypeFor[float32](), kindFloat64: reflect.TypeFor[float64](),
	kindEnum: reflect.TypeFor[string](), kindTypeObject: reflect.TypeFor[string](),
}

// naturalNames are the Go types that structs of VDL's own are read into.
var naturalNames = map[string]reflect.Type{
	"time.Time": timeType, "time.Duration": durationType,
	"math.Complex64": reflect.TypeFor[complex64](), "math.Complex128": reflect.TypeFor[complex128](),
	"v.io/v23/vdl.WireError": reflect.TypeFor[*WireError](),
}

// natural plans what an interface gets. Lists, arrays, sets and maps are read into Go types of which there are few: each that is
// made stays in memory.
func (m *planner) natural(p *plan) error {
	w := p.wire
	var into reflect.Type
	switch w.kind {
	case kindList, kindArray:
		into = reflect.SliceOf(naturalElem(w.elem))
	case kindSet:
		if key := naturalScalars[w.key.kind]; key != nil {
			into = reflect.MapOf(key, emptyType)
		}
	case kindMap:
		if key := naturalScalars[w.key.kind]; key != nil {
			into = reflect.MapOf(key, naturalElem(w.elem))
		}
	case kindStruct:
		into = naturalNames[w.name]
	}
	if into == nil {
		return m.parts(p)
	}
	t, err := m.codec.typeOf(into)
	if err != nil {
		return err
	}
	if w.kind == kindStruct {
		own := t.wire
		if own.kind == kindOptional { // of an error
			own = own.elem
		}
		if !equal(w, own, map[[2]*wireType]bool{}) {
			return m.parts(p) // another of the same name
		}
	}
	p.elem, err = m.plan(w, t)
	return err
}

func naturalElem(w *wireType) reflect.Type {
	if t := naturalScalars[w.kind]; t != nil {
		return t
	}
	return anyGoType
}

// parts plans each part of p's type into an interface.
func (m *planner) parts(p *plan) error {
	t, err := m.codec.typeOf(anyGoType)
	if err != nil {
		return err
	}
	part := func(w *wireType) (made *plan) {
		if w != nil && err == nil {
			made, err = m.plan(w, t)
		}
		return made
	}
	if p.wire.kind != kindAny {
		p.key, p.elem = part(p.wire.key), part(p.wire.elem)
	}
	for _, f := range p.wire.fields {
		p.fields = append(p.fields, planField{plan: part(f.typ)})
	}
	return err
}
