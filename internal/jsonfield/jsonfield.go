// Package jsonfield lists the fields of structs as encoding/json sees them, for whoever reads or describes Go values by its rules.
package jsonfield

import (
	"cmp"
	"reflect"
	"slices"
	"sort"
	"strings"
	"unicode"
)

// Field is a field of a struct.
type Field struct {
	// Name is its name in JSON.
	Name string
	// Index leads to it from the struct, as in [reflect.Value.FieldByIndex].
	Index []int
	Type  reflect.Type
	// Tag is the whole of the field's tag.
	Tag reflect.StructTag
	// Quoted, OmitEmpty and OmitZero are the options "string", where the field's type takes it, "omitempty" and "omitzero".
	Quoted, OmitEmpty, OmitZero bool

	tagged bool // its name stands in the tag
}

// Of gives the fields of a struct by the rules of encoding/json (its documentation, under Marshal): those of
// embedded structs as if they were the outer one's; of several with one name the least nested, then the tagged; none of
// them where that leaves more than one.
func Of(t reflect.Type) []Field {
	var all []Field
	level := []Field{{Type: t}}
	seen := map[reflect.Type]bool{}
	for len(level) > 0 {
		times := map[reflect.Type]int{}
		for _, f := range level {
			times[f.Type]++
		}
		var next []Field
		for _, embedded := range level {
			if seen[embedded.Type] {
				continue
			}
			seen[embedded.Type] = true
			own, deeper := direct(embedded)
			all = append(all, own...)
			if times[embedded.Type] > 1 {
				all = append(all, own...) // twice at one depth: they hide each other
			}
			next = append(next, deeper...)
		}
		level = next
	}
	return visible(all)
}

// direct gives the named fields of one struct, and the structs embedded in it.
func direct(outer Field) (own, embedded []Field) {
	for i := range outer.Type.NumField() {
		sf := outer.Type.Field(i)
		tag := sf.Tag.Get("json")
		if tag == "-" || !reachable(sf) {
			continue
		}
		name, options, _ := strings.Cut(tag, ",")
		if !validName(name) {
			name = ""
		}
		t := sf.Type
		if t.Name() == "" && t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		f := Field{Name: name, Type: sf.Type, Tag: sf.Tag, tagged: name != ""}
		f.Index = append(slices.Clone(outer.Index), i)
		set := strings.Split(options, ",")
		f.Quoted = quotable(t) && slices.Contains(set, "string")
		f.OmitEmpty, f.OmitZero = slices.Contains(set, "omitempty"), slices.Contains(set, "omitzero")
		if name == "" && sf.Anonymous && t.Kind() == reflect.Struct {
			f.Type = t
			embedded = append(embedded, f)
			continue
		}
		if name == "" {
			f.Name = sf.Name
		}
		own = append(own, f)
	}
	return own, embedded
}

// reachable reports whether encoding/json looks at a field: an exported one, or an embedded struct, exported or not,
// whose own fields may be.
func reachable(sf reflect.StructField) bool {
	if sf.IsExported() || !sf.Anonymous {
		return sf.IsExported()
	}
	t := sf.Type
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.Kind() == reflect.Struct
}

// visible resolves names that stand for several fields, and gives the rest in the order of declaration.
func visible(all []Field) []Field {
	// Not the sorts of slices: made for a struct of this size they weigh 33 KB in every service's binary.
	sort.SliceStable(all, func(i, j int) bool {
		a, b := &all[i], &all[j]
		return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(len(a.Index), len(b.Index)), -compareBool(a.tagged, b.tagged), slices.Compare(a.Index, b.Index)) < 0
	})
	var out []Field
	for i := 0; i < len(all); {
		same := 1
		for i+same < len(all) && all[i+same].Name == all[i].Name {
			same++
		}
		if same == 1 || len(all[i].Index) < len(all[i+1].Index) || all[i].tagged && !all[i+1].tagged {
			out = append(out, all[i])
		}
		i += same
	}
	sort.Slice(out, func(i, j int) bool { return slices.Compare(out[i].Index, out[j].Index) < 0 })
	return out
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// validName is encoding/json's rule for a name in a tag; another is as good as none.
func validName(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return !strings.ContainsRune("!#$%&()*+-./:;<=>?@[]^_{|}~ ", r) && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	})
}

func quotable(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Bool, reflect.String, reflect.Float32, reflect.Float64,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return true
	}
	return false
}
