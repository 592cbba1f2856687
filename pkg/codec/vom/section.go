package vom

import (
	"reflect"
	"sync"
)

// section is the types that a body defines, and how they are read into Go types. Bodies that begin with the same definitions
// share one.
type section struct {
	types map[uint64]*wireType // by id

	mu    sync.RWMutex
	plans map[planKey]*plan
}

type planKey struct {
	wire *wireType
	goes reflect.Type
}

// typ gives the type of an id, or nil.
func (s *section) typ(id uint64) *wireType {
	if id < firstID {
		return builtin[id]
	}
	return s.types[id]
}

// The bounds of the sections that are kept: of one's bytes, and of half of all of them.
const (
	keptSection  = 8 << 10
	keptSections = 64 << 10
)

// sections are those that bodies began with lately. A peer that makes up new ones takes the places of those that are in use,
// which are made anew; the memory stays bounded.
type sections struct {
	mu         sync.RWMutex
	young, old map[string]*section
	size       int // of young
}

func (s *sections) find(data []byte) *section {
	s.mu.RLock()
	found := s.young[string(data)]
	s.mu.RUnlock()
	if found != nil {
		return found
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if found = s.old[string(data)]; found != nil {
		s.add(data, found)
	}
	return found
}

func (s *sections) keep(data []byte, made *section) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(data, made)
}

func (s *sections) add(data []byte, made *section) {
	if _, ok := s.young[string(data)]; ok {
		return
	}
	if s.young == nil || s.size+len(data) > keptSections {
		s.old, s.young, s.size = s.young, map[string]*section{}, 0
	}
	s.young[string(data)] = made
	s.size += len(data)
}

// readSection reads the type messages, up to the value message.
func (r *reader) readSection() error {
	start := r.pos
	messages, err := r.skipSection()
	if err != nil {
		return err
	}
	data := r.data[start:r.pos]
	if r.section = r.codec.sections.find(data); r.section != nil {
		return nil
	}
	p := definitions{
		reader:  reader{data: r.data[:r.pos], pos: start},
		pending: make(map[uint64]*definition, messages), types: make(map[uint64]*wireType, messages),
	}
	for range messages {
		if err := p.message(); err != nil {
			return err
		}
	}
	r.section = &section{types: p.types, plans: map[planKey]*plan{}}
	if len(data) <= keptSection && p.parts <= len(data) {
		r.codec.sections.keep(data, r.section)
	}
	return nil
}

// skipSection moves to the value message, and counts the messages before it.
func (r *reader) skipSection() (messages int, err error) {
	begin := r.pos
	for ; ; messages++ {
		start := r.pos
		b, err := r.peek(nil)
		if err != nil {
			return 0, err
		}
		if b == ctrlIncomplete {
			r.pos++
		}
		id, err := r.uint(nil)
		switch {
		case err != nil:
			return 0, err
		case id == 0:
			return 0, failAt(start, nil, "a message with the id 0")
		case id&1 == 0 && b == ctrlIncomplete:
			return 0, failAt(start, nil, "a value's message is called incomplete")
		case id&1 == 0:
			r.pos = start
			return messages, nil
		case messages == MaxTypes:
			return 0, failAt(start, nil, "more than %d types", MaxTypes)
		}
		n, err := r.length(nil, "length of a definition")
		if err != nil {
			return 0, err
		}
		if r.pos += n; r.pos-begin > MaxTypeBytes {
			return 0, failAt(start, nil, "more than %d bytes of definitions", MaxTypeBytes)
		}
	}
}

// definition is a type message.
type definition struct {
	offset int
	form   kind // kindAny: another type with a name
	name   string
	labels []string
	size   uint64
	key    uint64
	elem   uint64
	fields []definedField
}

type definedField struct {
	name string
	typ  uint64
}

// forms are the kinds of definitions by their index, and which of a definition's fields hold key and elem.
var forms = [...]struct {
	form      kind
	key, elem uint64
}{
	{kindAny, 0, 1}, {kindEnum, 0, 0}, {kindArray, 0, 1}, {kindList, 0, 1}, {kindSet, 1, 0}, {kindMap, 1, 2},
	{kindStruct, 0, 0}, {kindUnion, 0, 0}, {kindOptional, 0, 1},
}

// definitions reads type messages.
type definitions struct {
	reader
	pending map[uint64]*definition // of which no type was made yet
	types   map[uint64]*wireType
	parts   int // of the types: they, their fields and labels
}

// maxParts bounds the parts of types. Only types that are others by another name have more than their definitions have bytes.
const maxParts = 64 << 10

// message reads one, and makes its type unless it refers to later ones.
func (p *definitions) message() error {
	whole := p.data
	incomplete := p.data[p.pos] == ctrlIncomplete
	if incomplete {
		p.pos++
	}
	start := p.pos
	n, _ := p.uint(nil) // skipSection has been here
	id := n>>1 + 1
	if id < firstID {
		return failAt(start, nil, "the id %d is not free", id)
	}
	if p.pending[id] != nil || p.types[id] != nil {
		return failAt(start, nil, "the id %d is defined twice", id)
	}
	length, _ := p.length(nil, "length")
	p.data = whole[:p.pos+length]
	d, err := p.definition()
	if err != nil {
		return err
	}
	if p.left() > 0 {
		return p.fail(nil, "the definition of %d is shorter than its message, by %d", id, p.left())
	}
	p.data = whole
	d.offset = start
	p.pending[id] = d
	if incomplete {
		return nil
	}
	return p.make(id)
}

// definition reads a union of structs, as which definitions are sent.
func (p *definitions) definition() (*definition, error) {
	i, err := p.index(nil, len(forms), "kind of definition")
	if err != nil {
		return nil, err
	}
	f := forms[i]
	d := &definition{form: f.form}
	for {
		done, err := p.end(nil)
		if err != nil || done {
			return d, err
		}
		start := p.pos
		field, err := p.uint(nil)
		switch {
		case err != nil:
		case field == 0:
			d.name, err = p.string()
		case field == f.key:
			d.key, err = p.uint(nil)
		case field == f.elem:
			d.elem, err = p.uint(nil)
		case field == 2 && d.form == kindArray:
			d.size, err = p.uint(nil)
		case field == 1 && d.form == kindEnum:
			d.labels, err = p.labels()
		case field == 1 && (d.form == kindStruct || d.form == kindUnion):
			d.fields, err = p.fields()
		default:
			err = failAt(start, nil, "field %d of a definition", field)
		}
		if err != nil {
			return nil, err
		}
	}
}

func (p *definitions) string() (string, error) {
	b, err := p.text(nil)
	return string(b), err
}

func (p *definitions) labels() ([]string, error) {
	n, err := p.length(nil, "count of labels")
	var labels []string
	for range n {
		label, err := p.string()
		if err != nil {
			return nil, err
		}
		labels = append(labels, label)
	}
	return labels, err
}

func (p *definitions) fields() ([]definedField, error) {
	n, err := p.length(nil, "count of fields")
	var fields []definedField
	for range n {
		f, err := p.field()
		if err != nil {
			return nil, err
		}
		fields = append(fields, f)
	}
	return fields, err
}

func (p *definitions) field() (f definedField, err error) {
	for {
		done, err := p.end(nil)
		if err != nil || done {
			return f, err
		}
		i, err := p.index(nil, 2, "field of a field")
		switch {
		case err != nil:
		case i == 0:
			f.name, err = p.string()
		default:
			f.typ, err = p.uint(nil)
		}
		if err != nil {
			return f, err
		}
	}
}

// refers calls f for each id that d refers to.
func (d *definition) refers(f func(id uint64)) {
	switch d.form {
	case kindSet:
		f(d.key)
	case kindMap:
		f(d.key)
		f(d.elem)
	case kindEnum, kindStruct, kindUnion:
	default:
		f(d.elem)
	}
	for _, field := range d.fields {
		f(field.typ)
	}
}

// make makes the type of id, and those of the pending definitions that it leads to.
func (p *definitions) make(id uint64) error {
	offset := p.pending[id].offset
	ids, made := []uint64{id}, map[uint64]*wireType{id: new(wireType)}
	var err error
	for i := 0; i < len(ids); i++ {
		p.pending[ids[i]].refers(func(to uint64) {
			switch {
			case p.typ(to) != nil || made[to] != nil:
			case p.pending[to] != nil:
				ids, made[to] = append(ids, to), new(wireType)
			case err == nil:
				err = failAt(offset, nil, "the type %d refers to %d, which is no type or comes later", id, to)
			}
		})
	}
	if err != nil {
		return err
	}
	types := make([]*wireType, len(ids))
	for i, each := range ids {
		if types[i] = made[each]; p.pending[each].form != kindAny && err == nil {
			err = p.fill(types[i], p.pending[each], made)
		}
	}
	for i, each := range ids {
		if p.pending[each].form == kindAny && err == nil {
			err = p.rename(types[i], p.pending[each], made)
		}
		p.parts += 1 + len(types[i].fields) + len(types[i].labels)
	}
	switch {
	case err != nil:
		return err
	case p.parts > maxParts:
		return failAt(offset, nil, "the types have more than %d fields", maxParts)
	}
	if bad := check(types); bad != nil {
		return failAt(offset, bad.typ, "%s", bad.reason)
	}
	for i, each := range ids {
		p.types[each] = types[i]
		delete(p.pending, each)
	}
	return nil
}

func (p *definitions) typ(id uint64) *wireType {
	if id < firstID {
		return builtin[id]
	}
	return p.types[id]
}

// fill makes t what d says. made are the types that are being made.
func (p *definitions) fill(t *wireType, d *definition, made map[uint64]*wireType) error {
	get := func(id uint64) *wireType {
		if m := made[id]; m != nil {
			return m
		}
		return p.typ(id) // nil for 0
	}
	if d.size > maxLength {
		return failAt(d.offset, nil, "an array of %d, the limit is %d", d.size, maxLength)
	}
	*t = wireType{kind: d.form, name: d.name, labels: d.labels, size: int(d.size), key: get(d.key), elem: get(d.elem)}
	if len(d.fields) > 0 {
		t.fields = make([]wireField, len(d.fields))
	}
	for i, f := range d.fields {
		t.fields[i] = wireField{f.name, get(f.typ)}
	}
	return nil
}

// rename makes t a copy of the type that d gives a name to, once that is filled.
func (p *definitions) rename(t *wireType, d *definition, made map[uint64]*wireType) error {
	if d.name == "" {
		return failAt(d.offset, nil, "a definition that gives a name, without a name")
	}
	base := d
	for range made {
		next := p.pending[base.elem]
		switch {
		case next == nil:
			*t = *p.typ(base.elem)
		case next.form != kindAny:
			*t = *made[base.elem]
		default:
			base = next
			continue
		}
		t.name = d.name
		return nil
	}
	return failAt(d.offset, nil, "the type %s is based on itself", clip(d.name))
}
