package vom

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"sync/atomic"
	"time"
)

// form is how a Go type holds a value.
type form uint8

const (
	formBool form = iota + 1
	formInt
	formUint
	formFloat
	formString
	formEnum // an integer
	formSlice
	formArray
	formSet
	formMap
	formStruct
	formUnion     // an interface
	formUnionCase // a struct that is in a union
	formOptional  // a pointer to what is a named struct in VDL
	formPointer   // another pointer: as what it points to
	formAny       // an interface
	formError     // what has the method Error, by itself or by pointer
	formTime
	formDuration
	formComplex
)

// goType is a Go type, and its type in VDL. It is not changed once it was built.
type goType struct {
	goes   reflect.Type
	form   form
	wire   *wireType
	key    *goType   // of a set or map
	elem   *goType   // of a slice, array, map or pointer; or the type as which it goes
	fields []goField // of a struct
	hidden bool      // a struct with fields that do not exist for VDL
	cases  []goCase  // of a union, also for its structs
	index  int       // of a struct that is in a union
	isZero zeroMethod
	// floats says that a key may hold a NaN, which no map finds again.
	floats bool

	root atomic.Pointer[root]
}

type goField struct {
	name  string
	index int
	typ   *goType
}

// goCase is a field of a union.
type goCase struct {
	name string
	goes reflect.Type // a struct with the one field Value
	typ  *goType      // of Value
}

// zeroMethod is how a type is asked whether a value is zero.
type zeroMethod uint8

const (
	zeroByValue  zeroMethod = iota
	zeroByMethod            // IsZero() bool, or by pointer
	zeroByVDL               // VDLIsZero() bool, or by pointer
)

type (
	isZeroer    interface{ IsZero() bool }
	vdlIsZeroer interface{ VDLIsZero() bool }
)

var (
	errorType    = reflect.TypeFor[error]()
	anyGoType    = reflect.TypeFor[any]()
	timeType     = reflect.TypeFor[time.Time]()
	durationType = reflect.TypeFor[time.Duration]()
	emptyType    = reflect.TypeFor[struct{}]()
)

// noForm is a Go type that has no form in VOM.
type noForm struct {
	goes   reflect.Type
	reason string
}

func (e *noForm) Error() string { return fmt.Sprintf("type %s: %s", e.goes, e.reason) }

// typeOf gives what there is to know of a Go type.
func (c *Codec) typeOf(t reflect.Type) (*goType, error) {
	if known, ok := c.known.Load(t); ok {
		return known.(*goType), nil
	}
	c.building.Lock()
	defer c.building.Unlock()
	b := builder{codec: c, made: map[reflect.Type]*goType{}}
	made, err := b.typ(t)
	for i := 0; i < len(b.order) && err == nil; i++ {
		err = b.fill(b.order[i])
	}
	if err == nil {
		err = b.finish()
	}
	return made, err
}

// builder builds a Go type and those that it is made of. A type may lead to itself: each gets its wireType when it is met, and
// its parts later.
type builder struct {
	codec *Codec
	made  map[reflect.Type]*goType
	order []*goType
}

// typ gives a type, whose parts may not be known yet. Its form and its wire are.
func (b *builder) typ(t reflect.Type) (*goType, error) {
	if known, ok := b.codec.known.Load(t); ok {
		return known.(*goType), nil
	}
	if made := b.made[t]; made != nil {
		return made, nil
	}
	g := &goType{goes: t}
	b.made[t] = g
	b.order = append(b.order, g)
	other, err := b.classify(g)
	switch {
	case err != nil:
	case other != nil: // it goes as that
		if g.elem, err = b.typ(other); err == nil {
			g.wire = g.elem.wire
		}
	}
	return g, err
}

// classify finds g's form, and the type that has the same wire, if there is one.
func (b *builder) classify(g *goType) (other reflect.Type, err error) {
	t := g.goes
	direct := t.Kind() != reflect.Pointer && t.Kind() != reflect.Interface
	switch {
	case t == timeType:
		g.form, other = formTime, reflect.TypeFor[wireTime]()
	case t == durationType:
		g.form, other = formDuration, reflect.TypeFor[wireDuration]()
	case t.Kind() == reflect.Complex64:
		g.form, other = formComplex, reflect.TypeFor[wireComplex64]()
	case t.Kind() == reflect.Complex128:
		g.form, other = formComplex, reflect.TypeFor[wireComplex128]()
	case t.Implements(errorType), direct && reflect.PointerTo(t).Implements(errorType):
		g.form, other = formError, reflect.TypeFor[*wireError]()
	case t.Kind() == reflect.Pointer:
		return b.pointer(g)
	default:
		return b.plain(g)
	}
	return other, nil
}

// pointer: several stars are one.
func (b *builder) pointer(g *goType) (other reflect.Type, err error) {
	target := g.goes.Elem()
	for steps := 0; target.Kind() == reflect.Pointer && !target.Implements(errorType); steps++ {
		if steps > MaxDepth {
			return nil, &noForm{g.goes, "it points to itself"}
		}
		target = target.Elem()
	}
	if !namedStruct(target) {
		g.form = formPointer
		return target, nil
	}
	g.form, g.wire = formOptional, &wireType{kind: kindOptional}
	g.elem, err = b.typ(target)
	return nil, err
}

// namedStruct reports whether t is a named struct in VDL.
func namedStruct(t reflect.Type) bool {
	switch {
	case t == durationType, t.Kind() == reflect.Complex64, t.Kind() == reflect.Complex128:
		return true
	case t.Kind() != reflect.Struct, reflect.PointerTo(t).Implements(errorType):
		return false
	}
	d, err := describe(t)
	return err == nil && d.name != "" && d.union == nil
}

// plain classifies by the kind, or by what the type says of itself.
func (b *builder) plain(g *goType) (other reflect.Type, err error) {
	t := g.goes
	d, err := describe(t)
	if err != nil {
		return nil, err
	}
	g.wire = &wireType{name: d.name}
	g.isZero = zeroMethodOf(t)
	switch {
	case d.union != nil && d.union != t:
		g.form = formUnionCase
		return d.union, nil
	case d.union != nil:
		g.form, g.wire.kind = formUnion, kindUnion
		return nil, nil
	case d.labels != nil:
		g.form, g.wire.kind, g.wire.labels = formEnum, kindEnum, d.labels
		return nil, nil
	}
	f, ok := plainForms[t.Kind()]
	if !ok {
		return nil, &noForm{t, "there is no such type in VOM"}
	}
	g.form, g.wire.kind = f.form, f.kind
	switch {
	case f.form == formAny:
		g.wire.name = ""
	case f.form == formArray:
		g.wire.size = t.Len()
	case f.form == formMap && t.Elem() == emptyType:
		g.form, g.wire.kind = formSet, kindSet
	}
	return nil, nil
}

// plainForms are the forms by kind. An int has the same size everywhere.
var plainForms = map[reflect.Kind]struct {
	form form
	kind kind
}{
	reflect.Bool: {formBool, kindBool}, reflect.String: {formString, kindString},
	reflect.Int8: {formInt, kindInt8}, reflect.Int16: {formInt, kindInt16}, reflect.Int32: {formInt, kindInt32},
	reflect.Int64: {formInt, kindInt64}, reflect.Int: {formInt, kindInt64},
	reflect.Uint8: {formUint, kindByte}, reflect.Uint16: {formUint, kindUint16}, reflect.Uint32: {formUint, kindUint32},
	reflect.Uint64: {formUint, kindUint64}, reflect.Uint: {formUint, kindUint64}, reflect.Uintptr: {formUint, kindUint64},
	reflect.Float32: {formFloat, kindFloat32}, reflect.Float64: {formFloat, kindFloat64},
	reflect.Slice: {formSlice, kindList}, reflect.Array: {formArray, kindArray}, reflect.Map: {formMap, kindMap},
	reflect.Struct: {formStruct, kindStruct}, reflect.Interface: {formAny, kindAny},
}

// fill finds the parts of g.
func (b *builder) fill(g *goType) (err error) {
	switch g.form {
	case formOptional:
		g.wire.elem = g.elem.wire
	case formSlice, formArray, formMap:
		if g.elem, err = b.typ(g.goes.Elem()); err != nil {
			return err
		}
		g.wire.elem = g.elem.wire
	case formStruct:
		return b.structure(g)
	case formUnion, formUnionCase:
		return b.union(g)
	}
	if g.form == formMap || g.form == formSet {
		if g.key, err = b.typ(g.goes.Key()); err != nil {
			return err
		}
		g.wire.key = g.key.wire
	}
	return nil
}

func (b *builder) structure(g *goType) error {
	t := g.goes
	for i := range t.NumField() {
		f := t.Field(i)
		if !f.IsExported() {
			g.hidden = true
			continue
		}
		typ, err := b.typ(f.Type)
		if err != nil {
			return fmt.Errorf("field %s of %s: %w", f.Name, t, err)
		}
		g.fields = append(g.fields, goField{f.Name, i, typ})
		g.wire.fields = append(g.wire.fields, wireField{f.Name, typ.wire})
	}
	if t.NumField() > 0 && len(g.fields) == 0 {
		return &noForm{t, "none of its fields is exported"}
	}
	return nil
}

// union fills an interface, or finds one of its structs in it.
func (b *builder) union(g *goType) error {
	d, err := describe(g.goes)
	if err != nil {
		return err
	}
	g.index = -1
	for i, f := range d.cases {
		if f.Type == g.goes {
			g.index = i
		}
		if f.Type.Kind() != reflect.Struct || f.Type.NumField() != 1 || f.Type.Field(0).Name != "Value" || !f.Type.Implements(d.union) {
			return &noForm{d.union, fmt.Sprintf("%s in it is no struct with the one field Value that has its methods", f.Name)}
		}
		typ, err := b.typ(f.Type.Field(0).Type)
		if err != nil {
			return fmt.Errorf("field %s of %s: %w", f.Name, d.union, err)
		}
		g.cases = append(g.cases, goCase{f.Name, f.Type, typ})
		if g.form == formUnion {
			g.wire.fields = append(g.wire.fields, wireField{f.Name, typ.wire})
		}
	}
	if g.form == formUnionCase && (g.index < 0 || g.elem.form != formUnion) {
		return &noForm{g.goes, fmt.Sprintf("it is none of the structs of the union %s", d.union)}
	}
	return nil
}

// zeroMethodOf tells how values of t are asked whether they are zero.
// A struct that has the method from a pointer or interface that it embeds is not: that may be nil.
func zeroMethodOf(t reflect.Type) zeroMethod {
	if t.Kind() == reflect.Struct {
		for i := range t.NumField() {
			if f := t.Field(i); f.Anonymous && (f.Type.Kind() == reflect.Pointer || f.Type.Kind() == reflect.Interface) {
				return zeroByValue
			}
		}
	}
	p := reflect.PointerTo(t)
	switch {
	case t.Kind() == reflect.Interface:
		return zeroByValue
	case p.Implements(reflect.TypeFor[vdlIsZeroer]()):
		return zeroByVDL
	case p.Implements(reflect.TypeFor[isZeroer]()):
		return zeroByMethod
	}
	return zeroByValue
}

// description is what a type says of itself by its method VDLReflect, and its name without one.
type description struct {
	name   string
	labels []string
	union  reflect.Type // the interface
	cases  []reflect.StructField
}

// describe looks for the method VDLReflect. Its argument, a struct, has the fields Name, with a tag; Enum, a struct whose fields
// are the labels; or Type and Union, a struct whose fields are those of the union.
func describe(t reflect.Type) (*description, error) {
	d := new(description)
	if t.PkgPath() != "" {
		d.name = t.PkgPath() + "." + t.Name()
	}
	arg := reflectArgument(t)
	if arg == nil {
		return d, nil
	}
	if f, ok := arg.FieldByName("Name"); ok {
		if name := f.Tag.Get("vdl"); name != "" {
			d.name = name
		}
	}
	if f, ok := arg.FieldByName("Enum"); ok {
		if f.Type.Kind() != reflect.Struct || !integer(t.Kind()) {
			return nil, &noForm{t, "VDLReflect: an Enum is a struct, and its type an integer"}
		}
		d.labels = make([]string, f.Type.NumField())
		for i := range d.labels {
			d.labels[i] = f.Type.Field(i).Name
		}
	}
	f, ok := arg.FieldByName("Union")
	if !ok {
		return d, nil
	}
	of, hasType := arg.FieldByName("Type")
	if f.Type.Kind() != reflect.Struct || !hasType || of.Type.Kind() != reflect.Interface {
		return nil, &noForm{t, "VDLReflect: a Union is a struct, and has an interface as its Type"}
	}
	d.union = of.Type
	for i := range f.Type.NumField() {
		d.cases = append(d.cases, f.Type.Field(i))
	}
	return d, nil
}

// reflectArgument gives the struct that VDLReflect takes, or nil. A method that came with an embedded struct tells of that.
func reflectArgument(t reflect.Type) reflect.Type {
	arg := methodArgument(t)
	if arg == nil || t.Kind() != reflect.Struct {
		return arg
	}
	for i := range t.NumField() {
		if f := t.Field(i); f.Anonymous && methodArgument(f.Type) == arg {
			return nil
		}
	}
	return arg
}

func methodArgument(t reflect.Type) reflect.Type {
	m, ok := t.MethodByName("VDLReflect")
	at := 1 // after the receiver
	if t.Kind() == reflect.Interface {
		at = 0
	} else if !ok && t.Kind() != reflect.Pointer {
		m, ok = reflect.PointerTo(t).MethodByName("VDLReflect")
	}
	if !ok || m.Type.NumIn() != at+1 || m.Type.In(at).Kind() != reflect.Struct {
		return nil
	}
	return m.Type.In(at)
}

func integer(k reflect.Kind) bool { return k >= reflect.Int && k <= reflect.Uintptr }

// finish checks the types that were built, finds those that are the same in VDL, and makes all of them known.
func (b *builder) finish() error {
	var wires []*wireType
	seen := map[*wireType]bool{}
	for _, g := range b.order {
		if w := g.wire; !seen[w] && !b.codec.has(w) {
			seen[w] = true
			wires = append(wires, w)
		}
	}
	if bad := check(wires); bad != nil {
		at := slices.IndexFunc(b.order, func(g *goType) bool { return g.wire == bad.typ })
		return &noForm{b.order[at].goes, bad.reason}
	}
	for _, g := range b.order {
		if g.key != nil {
			if g.key.pointer() {
				return &noForm{g.goes, "a key holds no pointers"}
			}
			g.floats = g.key.mayBeNaN()
		}
	}
	same := b.codec.intern(wires)
	get := func(w *wireType) *wireType {
		if s := same[w]; s != nil {
			return s
		}
		return w
	}
	for _, w := range wires {
		if w.key != nil {
			w.key = get(w.key)
		}
		if w.elem != nil {
			w.elem = get(w.elem)
		}
		for i := range w.fields {
			w.fields[i].typ = get(w.fields[i].typ)
		}
	}
	for _, g := range b.order {
		g.wire = get(g.wire)
	}
	for _, g := range b.order {
		b.codec.known.Store(g.goes, g)
	}
	return nil
}

// pointer reports whether g, which is or is in a key, is or holds a pointer.
func (g *goType) pointer() bool {
	switch g.form {
	case formPointer, formOptional:
		return true
	case formArray:
		return g.elem.pointer()
	}
	for _, f := range g.fields {
		if f.typ.pointer() {
			return true
		}
	}
	for _, c := range g.cases {
		if c.typ.pointer() {
			return true
		}
	}
	return false
}

// mayBeNaN reports whether g, which is or is in a key, may be or hold a NaN.
func (g *goType) mayBeNaN() bool {
	switch g.form {
	case formFloat, formComplex:
		return true
	case formArray:
		return g.elem.mayBeNaN()
	}
	for _, f := range g.fields {
		if f.typ.mayBeNaN() {
			return true
		}
	}
	for _, c := range g.cases {
		if c.typ.mayBeNaN() {
			return true
		}
	}
	return false
}

// bucket is what types that are the same have in common.
func (t *wireType) bucket() string {
	return strconv.Itoa(int(t.kind)) + " " + strconv.Itoa(t.size+len(t.labels)+len(t.fields)) + " " + t.name
}

// has reports whether w is one of those that are known.
func (c *Codec) has(w *wireType) bool {
	for _, known := range c.wires[w.bucket()] {
		if known == w {
			return true
		}
	}
	return false
}

// intern gives for each of wires the one type that stands for all that are the same.
func (c *Codec) intern(wires []*wireType) map[*wireType]*wireType {
	if c.wires == nil {
		c.wires = map[string][]*wireType{}
	}
	same := make(map[*wireType]*wireType, len(wires))
	for _, w := range wires {
		key := w.bucket()
		for _, known := range c.wires[key] {
			if equal(w, known, map[[2]*wireType]bool{}) {
				same[w] = known
				break
			}
		}
		if same[w] == nil {
			same[w] = w
			c.wires[key] = append(c.wires[key], w)
		}
	}
	return same
}
