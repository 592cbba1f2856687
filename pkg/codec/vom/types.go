package vom

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// kind is a kind of VDL type.
type kind uint8

const (
	kindBool kind = iota + 1
	kindByte
	kindString
	kindUint16
	kindUint32
	kindUint64
	kindInt8
	kindInt16
	kindInt32
	kindInt64
	kindFloat32
	kindFloat64
	kindTypeObject
	kindAny
	kindEnum
	kindArray
	kindList
	kindSet
	kindMap
	kindStruct
	kindUnion
	kindOptional
)

var kindNames = [...]string{
	kindBool: "bool", kindByte: "byte", kindString: "string", kindUint16: "uint16", kindUint32: "uint32", kindUint64: "uint64",
	kindInt8: "int8", kindInt16: "int16", kindInt32: "int32", kindInt64: "int64", kindFloat32: "float32", kindFloat64: "float64",
	kindTypeObject: "typeobject", kindAny: "any", kindEnum: "enum", kindArray: "array", kindList: "list", kindSet: "set",
	kindMap: "map", kindStruct: "struct", kindUnion: "union", kindOptional: "optional",
}

func (k kind) String() string { return kindNames[k] }

// scalar reports whether k is a bool, a number or a string.
func (k kind) scalar() bool { return k <= kindFloat64 }

// has is what a type has anywhere in its static structure.
type has uint8

const (
	hasAny has = 1 << iota
	hasTypeObject
	hasNoKey // what cannot be part of a key
)

// own gives what types of a kind have by themselves.
func (k kind) own() has {
	switch k {
	case kindAny:
		return hasAny | hasNoKey
	case kindTypeObject:
		return hasTypeObject | hasNoKey
	case kindList, kindSet, kindMap, kindOptional:
		return hasNoKey
	}
	return 0
}

// wireType is a VDL type. It is not changed once it was checked.
type wireType struct {
	kind   kind
	name   string
	labels []string    // of an enum
	size   int         // of an array
	key    *wireType   // of a set or map
	elem   *wireType   // of an array, list, map or optional
	fields []wireField // of a struct or union
	has    has
}

type wireField struct {
	name string
	typ  *wireType
}

// parts calls f for each type that t is directly made of, in the order in which they are defined.
func (t *wireType) parts(f func(*wireType)) {
	if t.key != nil {
		f(t.key)
	}
	if t.elem != nil {
		f(t.elem)
	}
	for i := range t.fields {
		f(t.fields[i].typ)
	}
}

// bytes reports whether t is a list or array of raw bytes.
func (t *wireType) bytes() bool {
	return (t.kind == kindList || t.kind == kindArray) && t.elem.kind == kindByte
}

// sized reports whether the message of a value of type t says how long the value is.
func (t *wireType) sized() bool {
	switch t.kind {
	case kindArray, kindList:
		return !t.bytes()
	case kindSet, kindMap, kindStruct, kindUnion, kindOptional, kindAny:
		return true
	}
	return false
}

// firstID is the id of the first type that a body defines.
const firstID = 41

// The types that have an id in every body.
var (
	builtin = [firstID]*wireType{
		1: {kind: kindBool}, 2: {kind: kindByte}, 3: {kind: kindString}, 4: {kind: kindUint16}, 5: {kind: kindUint32}, 6: {kind: kindUint64},
		7: {kind: kindInt16}, 8: {kind: kindInt32}, 9: {kind: kindInt64}, 10: {kind: kindFloat32}, 11: {kind: kindFloat64},
		14: {kind: kindTypeObject, has: hasTypeObject | hasNoKey}, 15: anyType, 16: {kind: kindInt8},
		39: {kind: kindList, elem: &wireType{kind: kindByte}, has: hasNoKey}, 40: {kind: kindList, elem: &wireType{kind: kindString}, has: hasNoKey},
	}
	anyType = &wireType{kind: kindAny, has: hasAny | hasNoKey}
)

const anyID = 15

// builtinID gives the id that t has in every body, or 0.
func builtinID(t *wireType) uint64 {
	if t.name != "" {
		return 0
	}
	switch {
	case t.kind == kindList && t.elem.name == "" && t.elem.kind == kindByte:
		return 39
	case t.kind == kindList && t.elem.name == "" && t.elem.kind == kindString:
		return 40
	case t.kind == kindInt8:
		return 16
	case t.kind == kindTypeObject, t.kind == kindAny:
		return uint64(t.kind-kindTypeObject) + 14
	case t.kind <= kindUint64:
		return uint64(t.kind)
	case t.kind.scalar():
		return uint64(t.kind-kindInt16) + 7
	}
	return 0
}

// equal reports whether a and b are the same type: of the same name and structure. same are the pairs that are being
// compared, which are taken to be equal.
func equal(a, b *wireType, same map[[2]*wireType]bool) bool {
	if a == b || same[[2]*wireType{a, b}] {
		return true
	}
	if a == nil || b == nil || a.kind != b.kind || a.name != b.name || a.size != b.size ||
		!slices.Equal(a.labels, b.labels) || len(a.fields) != len(b.fields) {
		return false
	}
	same[[2]*wireType{a, b}] = true
	for i := range a.fields {
		if a.fields[i].name != b.fields[i].name || !equal(a.fields[i].typ, b.fields[i].typ, same) {
			return false
		}
	}
	return equal(a.key, b.key, same) && equal(a.elem, b.elem, same)
}

// invalid is a type that VDL does not allow.
type invalid struct {
	typ    *wireType
	reason string
}

// check looks whether types are valid, and finds out what they have. Whatever they are made of is among them, or was checked
// before.
func check(types []*wireType) *invalid {
	for _, t := range types {
		if reason := t.fault(); reason != "" {
			return &invalid{t, reason}
		}
	}
	spread(types)
	for _, t := range types {
		if t.key != nil && t.key.has&hasNoKey != 0 {
			return &invalid{t, "a key holds no any, typeobject, optional, list, set or map"}
		}
	}
	if t := cycle(types, func(from, to *wireType) bool { return from.name == "" && to.name == "" }); t != nil {
		return &invalid{t, "it is made of itself, and none of the types between has a name"}
	}
	if t := cycle(types, func(from, _ *wireType) bool {
		return from.kind == kindStruct || from.kind == kindUnion || from.kind == kindArray
	}); t != nil {
		return &invalid{t, "it contains itself, without an optional, list, set or map between"}
	}
	return nil
}

// fault says what is wrong with a type by itself.
func (t *wireType) fault() string {
	switch t.kind {
	case kindAny, kindTypeObject:
		if t.name != "" {
			return "any and typeobject have no names"
		}
	case kindOptional:
		if t.elem.kind != kindStruct || t.elem.name == "" {
			return "only a struct with a name may be optional"
		}
	case kindArray:
		if t.size < 1 {
			return "an array of length 0"
		}
	case kindEnum:
		if len(t.labels) == 0 {
			return "an enum without labels"
		}
		for _, l := range t.labels {
			if l == "" {
				return "an enum with an empty label"
			}
		}
	case kindUnion, kindStruct:
		if t.kind == kindUnion && len(t.fields) == 0 {
			return "a union without fields"
		}
		names := make(map[string]bool, len(t.fields))
		for i := range t.fields {
			name := t.fields[i].name
			if name == "" {
				return "a field without a name"
			}
			if names[name] {
				return "two fields of the name " + clip(name)
			}
			names[name] = true
		}
	}
	return ""
}

// spread finds what types have, by those that they are made of.
func spread(types []*wireType) {
	users, todo := make(map[*wireType][]*wireType, len(types)), make([]*wireType, 0, len(types))
	for _, t := range types {
		t.has = t.kind.own()
		t.parts(func(p *wireType) {
			users[p] = append(users[p], t)
			t.has |= p.has
		})
		todo = append(todo, t)
	}
	for len(todo) > 0 {
		t := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, u := range users[t] {
			if u.has|t.has != u.has {
				u.has |= t.has
				todo = append(todo, u)
			}
		}
	}
}

// cycle gives a type that leads back to itself over the steps that follow allows, or nil.
func cycle(types []*wireType, follow func(from, to *wireType) bool) *wireType {
	const open, done = 1, 2
	state := make(map[*wireType]int, len(types))
	for _, t := range types {
		state[t] = 0
	}
	var visit func(t *wireType) *wireType
	visit = func(t *wireType) (found *wireType) {
		state[t] = open
		t.parts(func(p *wireType) {
			s, ours := state[p] // others were checked before, and lead to none of these
			switch {
			case found != nil || !ours || !follow(t, p):
			case s == open:
				found = p
			case s == 0:
				found = visit(p)
			}
		})
		state[t] = done
		return found
	}
	for _, t := range types {
		if state[t] == 0 {
			if found := visit(t); found != nil {
				return found
			}
		}
	}
	return nil
}

// shownName is how many characters of a name from outside errors show.
const shownName = 60

// clip quotes what came from outside for an error.
func clip(s string) string {
	if len(s) > shownName {
		return strconv.Quote(s[:shownName]) + "..."
	}
	return strconv.Quote(s)
}

// String names the type for errors: by its name, if it has one.
func (t *wireType) String() string { return t.short(3) }

func (t *wireType) short(depth int) string {
	switch {
	case t == nil:
		return "nothing"
	case t.name != "":
		q := clip(t.name)
		if plain := strings.Trim(q, `"`); plain == t.name {
			return plain
		}
		return q
	case t.kind < kindArray:
		return t.kind.String()
	case depth == 0:
		return "..."
	}
	switch t.kind {
	case kindArray:
		return fmt.Sprintf("[%d]%s", t.size, t.elem.short(depth-1))
	case kindList:
		return "[]" + t.elem.short(depth-1)
	case kindSet:
		return "set[" + t.key.short(depth-1) + "]"
	case kindMap:
		return "map[" + t.key.short(depth-1) + "]" + t.elem.short(depth-1)
	case kindOptional:
		return "?" + t.elem.short(depth-1)
	}
	return t.kind.String()
}

// maxText bounds the text of a type: without names for its parts it may be far longer than the definitions were.
const maxText = 64 << 10

// text gives a type as VDL writes it, a type with a name in full where it first stands. It is false if that is too long.
func (t *wireType) text() (string, bool) {
	var b strings.Builder
	ok := t.write(&b, map[*wireType]bool{})
	return b.String(), ok
}

func (t *wireType) write(b *strings.Builder, seen map[*wireType]bool) bool {
	b.WriteString(t.name)
	switch {
	case b.Len() > maxText:
		return false
	case t.name != "" && seen[t]:
		return true
	case t.name != "":
		seen[t] = true
		b.WriteByte(' ')
	}
	switch t.kind {
	case kindEnum:
		b.WriteString("enum{" + strings.Join(t.labels, ";") + "}")
		return true
	case kindArray:
		b.WriteString("[" + strconv.Itoa(t.size) + "]")
	case kindList:
		b.WriteString("[]")
	case kindSet, kindMap:
		b.WriteString(t.kind.String() + "[")
		if !t.key.write(b, seen) {
			return false
		}
		b.WriteByte(']')
	case kindOptional:
		b.WriteByte('?')
	case kindStruct, kindUnion:
		return t.writeFields(b, seen)
	default:
		b.WriteString(t.kind.String())
	}
	return t.elem == nil || t.elem.write(b, seen)
}

func (t *wireType) writeFields(b *strings.Builder, seen map[*wireType]bool) bool {
	b.WriteString(t.kind.String() + "{")
	for i := range t.fields {
		if i > 0 {
			b.WriteByte(';')
		}
		b.WriteString(t.fields[i].name + " ")
		if !t.fields[i].typ.write(b, seen) {
			return false
		}
	}
	b.WriteByte('}')
	return true
}
