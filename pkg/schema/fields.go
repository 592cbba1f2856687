package schema

import (
	"cmp"
	"reflect"
	"slices"
	"sort"
	"strings"
	"unicode"
)

// field is a struct's field as encoding/json sees it.
type field struct {
	name   string
	tagged bool
	quoted bool
	index  []int
	typ    reflect.Type
	tag    reflect.StructTag
}

// structFields gives the fields of a struct by the rules of encoding/json (its documentation, under Marshal): those of
// embedded structs as if they were the outer one's; of several with one name the least nested, then the tagged; none of
// them where that leaves more than one.
func structFields(t reflect.Type) []field {
	var all []field
	level := []field{{typ: t}}
	seen := map[reflect.Type]bool{}
	for len(level) > 0 {
		times := map[reflect.Type]int{}
		for _, f := range level {
			times[f.typ]++
		}
		var next []field
		for _, embedded := range level {
			if seen[embedded.typ] {
				continue
			}
			seen[embedded.typ] = true
			own, deeper := direct(embedded)
			all = append(all, own...)
			if times[embedded.typ] > 1 {
				all = append(all, own...) // twice at one depth: they hide each other
			}
			next = append(next, deeper...)
		}
		level = next
	}
	return visible(all)
}

// direct gives the named fields of one struct, and the structs embedded in it.
func direct(outer field) (own, embedded []field) {
	for i := range outer.typ.NumField() {
		sf := outer.typ.Field(i)
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
		f := field{name: name, tagged: name != "", typ: sf.Type, tag: sf.Tag}
		f.index = append(slices.Clone(outer.index), i)
		f.quoted = quotable(t) && slices.Contains(strings.Split(options, ","), "string")
		if name == "" && sf.Anonymous && t.Kind() == reflect.Struct {
			f.typ = t
			embedded = append(embedded, f)
			continue
		}
		if name == "" {
			f.name = sf.Name
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
func visible(all []field) []field {
	// Not the sorts of slices: made for a struct of this size they weigh 33 KB in every service's binary.
	sort.SliceStable(all, func(i, j int) bool {
		a, b := &all[i], &all[j]
		return cmp.Or(strings.Compare(a.name, b.name), cmp.Compare(len(a.index), len(b.index)), -compareBool(a.tagged, b.tagged), slices.Compare(a.index, b.index)) < 0
	})
	var out []field
	for i := 0; i < len(all); {
		same := 1
		for i+same < len(all) && all[i+same].name == all[i].name {
			same++
		}
		if same == 1 || len(all[i].index) < len(all[i+1].index) || all[i].tagged && !all[i+1].tagged {
			out = append(out, all[i])
		}
		i += same
	}
	sort.Slice(out, func(i, j int) bool { return slices.Compare(out[i].index, out[j].index) < 0 })
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
