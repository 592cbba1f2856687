package vom_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/codec/vom"
)

type (
	bytesOf struct{ B []byte }
	numbers struct {
		A int64
		B uint8
		C float32
		X string
	}
	swapped struct {
		C float64
		A int8
	}
	nothing  struct{}
	named    struct{ Err *fs.PathError }
	anyFirst struct {
		V    any
		Next *anyFirst
	}
	anyLast struct {
		Next *anyLast
		V    any
	}
	ears   [2]int16
	colors struct{ C Color }
	texts  struct{ C string }
	small  uint8
)

// TestConversions reads what was written from one Go type into another.
func TestConversions(t *testing.T) {
	t.Parallel()
	c := vom.New()
	three, ada := int32(3), &One{"Ada"}
	for _, tc := range []struct {
		name  string
		in    any
		want  any // a pointer
		into  any // where there is a fault
		fault string
	}{
		{name: "int to uint", in: int64(5), want: new(small(5))},
		{name: "int too large", in: int64(256), into: new(small), fault: "codec/vom: at offset 2: int64: 256 does not fit vom_test.small"},
		{name: "int below zero", in: int8(-1), into: new(small), fault: "does not fit vom_test.small"},
		{name: "uint to int", in: uint64(math.MaxInt64), want: new(int64(math.MaxInt64))},
		{name: "uint too large", in: uint64(math.MaxInt64 + 1), into: new(int64), fault: "does not fit int64"},
		{name: "float to int", in: 2.0, want: new(int32(2))},
		{name: "float with a rest", in: 2.5, into: new(int32), fault: "does not fit int32"},
		{name: "float to uint, below zero", in: -1.0, into: new(uint), fault: "does not fit uint"},
		{name: "NaN to int", in: math.NaN(), into: new(int), fault: "does not fit int"},
		{name: "infinite to uint", in: math.Inf(1), into: new(uint64), fault: "does not fit uint64"},
		{name: "int to float", in: int64(1 << 53), want: new(float64(1 << 53))},
		{name: "int to float, rounded", in: int64(1<<53 + 1), into: new(float64), fault: "does not fit float64"},
		{name: "int to float32", in: int64(-1 << 24), want: new(float32(-1 << 24))},
		{name: "int to float32, rounded", in: uint32(1<<24 + 1), into: new(float32), fault: "does not fit float32"},
		{name: "float64 to float32", in: 0.1, want: new(float32(0.1))},
		{name: "float64 beyond float32", in: 1e300, into: new(float32), fault: "does not fit float32"},
		{name: "infinite to float32", in: math.Inf(-1), want: new(float32(math.Inf(-1)))},
		{name: "bool to int", in: true, into: new(int), fault: "codec/vom: at offset 2: bool: does not go into int"},
		{name: "string to bytes", in: "a", into: new([]byte), fault: "string: does not go into []uint8"},
		{name: "bytes to string", in: []byte("a"), into: new(string), fault: "[]byte: does not go into string"},
		{name: "bytes to numbers", in: []byte{1, 200}, want: &[]int32{1, 200}},
		{name: "bytes to numbers that are too small", in: []byte{1, 200}, into: new([]int8), fault: "does not fit int8"},
		{name: "numbers to bytes", in: []int64{1, 200}, want: &[]byte{1, 200}},
		{name: "numbers to bytes, too large", in: []int64{300}, into: new([]byte), fault: "does not fit uint8"},
		{name: "list to array", in: []int64{1, 2}, want: &ears{1, 2}},
		{name: "list to array of another length", in: []int64{1}, into: new(ears), fault: "codec/vom: at offset 10: []int64: 1 elements do not go into vom_test.ears"},
		{name: "array to list", in: ears{1, 2}, want: &[]int64{1, 2}},
		{name: "array to another array", in: [3]int16{}, into: new(ears), fault: "[3]int16: does not go into vom_test.ears"},
		{name: "byte array to list", in: Digest{1}, want: &[]byte{1, 0, 0, 0}},
		{name: "bytes to byte array", in: []byte{1, 2, 3, 4}, want: &Digest{1, 2, 3, 4}},
		{name: "bytes to a shorter array", in: []byte{1, 2, 3}, into: new(Digest), fault: "3 bytes do not go into vom_test.Digest"},
		{name: "list into any list", in: []int64{7}, want: &[]any{int64(7)}},
		{name: "bytes into any list", in: []byte{7, 200}, want: &[]any{byte(7), byte(200)}},
		{name: "any list into a list", in: []any{int64(7), 8.0, uint8(9)}, want: &[]int32{7, 8, 9}},
		{name: "nil in a list", in: []any{nil, int64(1)}, want: &[]int32{0, 1}},
		{name: "set to map", in: map[string]struct{}{}, into: new(map[string]bool), fault: "set[string]: does not go into map[string]bool"},
		{name: "map to another map", in: map[int8]int8{1: 2}, want: &map[uint64]float64{1: 2}},
		{name: "map to struct", in: map[string]int64{}, into: new(numbers), fault: "map[string]int64: does not go into vom_test.numbers"},
		{name: "struct to map", in: One{"Ada"}, want: &map[string]any{"Name": "Ada"}},
		{name: "struct to a map of strings", in: One{"Ada"}, into: new(map[string]string), fault: "does not go into map[string]string"},
		{name: "union to map", in: ShapeLabel{"x"}, want: &map[string]any{"Label": "x"}},
		{name: "struct by names", in: numbers{A: 1, B: 2, C: 1.5, X: "x"}, want: &swapped{C: 1.5, A: 1}},
		{name: "a field that does not fit", in: numbers{A: 300}, into: new(swapped), fault: "int64: 300 does not fit int8"},
		{name: "a field of another type", in: []struct{ In struct{ C []string } }{}, into: new([]struct{ In swapped }), fault: "field In.C: []string does not go into float64"},
		{name: "nothing in common", in: One{}, into: new(swapped), fault: "example.com/vec.One: does not go into vom_test.swapped: they have no field in common"},
		{name: "struct into an empty one", in: One{"Ada"}, want: &nothing{}},
		{name: "empty struct", in: nothing{}, want: &One{}},
		{name: "optional to struct", in: ada, want: ada},
		{name: "nil optional to struct", in: (*One)(nil), into: new(One), fault: "nil does not go into vom_test.One"},
		{name: "struct to optional", in: *ada, want: &ada},
		{name: "nil optional", in: (*One)(nil), want: new(*One)},
		{name: "nil to int", in: nil, into: new(int), fault: "codec/vom: at offset 5: any: nil does not go into int"},
		{name: "nil to struct", in: nil, into: new(One), fault: "nil does not go into vom_test.One"},
		{name: "nil to list", in: nil, into: new([]string), fault: "nil does not go into []string"},
		{name: "nil to pointer", in: nil, want: new(*One)},
		{name: "nil to error", in: nil, want: new(error)},
		{name: "nil in a field", in: Box{}, want: new(struct{ V int })},
		{name: "any in a field", in: Box{int8(3)}, want: &struct{ V *int32 }{&three}},
		{name: "any of another type", in: Box{"x"}, into: new(struct{ V time.Time }), fault: "does not go into"},
		{name: "enum to string", in: Color(2), want: new("Blue")},
		{name: "string to enum", in: "Green", want: new(Color(1))},
		{name: "string that is no label", in: "Pink", into: new(Color), fault: `"Pink" is no label of vom_test.Color`},
		{name: "enum to int", in: Color(2), into: new(int), fault: "example.com/vec.Color: does not go into int"},
		{name: "fields of enums", in: colors{2}, want: &texts{"Blue"}},
		{name: "union into one of its structs", in: ShapeLabel{"x"}, want: &ShapeLabel{"x"}},
		{name: "union into another of its structs", in: ShapeLabel{"x"}, into: new(ShapeCircle), fault: `its field "Label" does not go into vom_test.ShapeCircle`},
		{name: "error into its type", in: errors.New("x"), want: &vom.WireError{ID: vom.UnknownError, Msg: "x", Params: []any{"", "", "x"}}},
		{name: "error into another type", in: named{&fs.PathError{Err: fs.ErrExist}}, into: new(named), fault: "of an error nothing but error and *WireError can be read"},
		{name: "number into time", in: 5, into: new(time.Time), fault: "int64: does not go into time.Time"},
		{name: "interface that has methods", in: Box{"x"}, into: new(struct{ V fmt.Stringer }), fault: "it does not go into fmt.Stringer"},
		{name: "interface that a time has", in: Box{time.Second}, want: &struct{ V fmt.Stringer }{time.Second}},
		{name: "raw bytes of a named type", in: Blob("x"), want: &MyBytes{'x'}},
		{name: "bytes in a struct", in: bytesOf{[]byte("x")}, want: &struct{ B [1]byte }{[1]byte{'x'}}},
		{name: "several stars", in: &ada, want: &ada},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			data, err := c.Append(nil, tc.in)
			if err != nil {
				t.Fatal(err)
			}
			if tc.fault != "" {
				err = c.Unmarshal(data, tc.into)
				if err == nil || !strings.Contains(err.Error(), tc.fault) || !strings.HasPrefix(err.Error(), "codec/vom: ") {
					t.Errorf("got %v, %v, want %s", reflect.ValueOf(tc.into).Elem(), err, tc.fault)
				}
				return
			}
			into := reflect.New(reflect.TypeOf(tc.want).Elem()).Interface()
			err = c.Unmarshal(data, into)
			if err != nil || !reflect.DeepEqual(into, tc.want) {
				t.Errorf("got %#v, %v, want %#v", reflect.ValueOf(into).Elem(), err, tc.want)
			}
		})
	}
}

// TestWriting writes what the vectors do not have.
func TestWriting(t *testing.T) {
	t.Parallel()
	c := vom.New()
	one, boom := &One{"x"}, errors.New("boom")
	var none *One
	var nobody error
	var inner any = one
	for _, tc := range []struct {
		name     string
		in, same any // same is written alike
	}{
		{"a pointer to an interface", &inner, one},
		{"a pointer in an any", Box{one}, Box{*one}},
		{"a pointer to a pointer in an any", Box{&one}, Box{*one}},
		{"an interface in an any", Box{&inner}, Box{*one}},
		{"a nil pointer in an any", Box{none}, Box{}},
		{"a nil pointer in a list of any", []any{none}, []any{nil}},
		{"no error", &nobody, nil},
		{"a nil pointer that is an error", (*fs.PathError)(nil), nil},
		{"a nil pointer to a number", (*int)(nil), nil},
		{"an error by pointer", &boom, boom},
		{"an error of a type of its own", &fs.PathError{Op: "open", Path: "p", Err: fs.ErrExist}, errors.New("open p: file already exists")},
		{"an error around a WireError", fmt.Errorf("a: %w", &vom.WireError{Msg: "b"}), errors.New("a: b")},
		{"a WireError that is no pointer", vom.WireError{ID: "x"}, &vom.WireError{ID: "x"}},
		{"a nil union", []Shape{nil}, []Shape{ShapeCircle{}}},
		{"a union's struct", ShapeLabel{"x"}, struct2shape(ShapeLabel{"x"})},
		{"pointers in a list", []*int32{new(int32(5)), nil}, []int32{5, 0}},
		{"pointers to bytes", []*byte{new(byte(200)), nil}, []byte{200, 0}},
		{"an empty list", []string{}, []string(nil)},
		{"int and int64", struct{ A, B []int }{B: []int{1}}, struct{ A, B []int64 }{B: []int64{1}}},
		{"another type with the same definition", struct{ A []*Inner }{}, struct{ A []**Inner }{}},
	} {
		a, errA := c.Append(nil, tc.in)
		b, errB := c.Append(nil, tc.same)
		if errA != nil || errB != nil || string(a) != string(b) {
			t.Errorf("%s:\n%x, %v\n%x, %v", tc.name, a, errA, b, errB)
		}
	}
}

func struct2shape(s Shape) any { return &s }

// TestBytes holds what the reference gets wrong or does not tell.
func TestBytes(t *testing.T) {
	t.Parallel()
	c := vom.New()
	for _, tc := range []struct {
		name string
		in   any
		want string
	}{
		{"nil first in a map of any", map[string]any{"b": int64(1), "a": nil}, "81 51 06 05 01 03 02 0f e1 52 01 09 01 01 09 02 01 61 e0 01 62 00 00 02"},
		{"sorted by key", map[int8]bool{3: true, -1: false, 100: true}, "81 51 06 05 01 10 02 01 e1 52 08 03 01 00 06 01 ff c8 01"},
		{"sorted by key, texts", map[string]struct{}{"b": {}, "aa": {}}, "81 51 04 04 01 03 e1 52 06 02 02 61 61 01 62"},
	} {
		if got, err := c.Append(nil, tc.in); err != nil || string(got) != string(mustHex(tc.want)) {
			t.Errorf("%s: got %x, %v, want %s", tc.name, got, err, tc.want)
		}
	}
}

// TestAnyAfterTheTypeItself: whether a type has an any does not depend on the order in which its parts are met.
func TestAnyAfterTheTypeItself(t *testing.T) {
	t.Parallel()
	first, last := &anyFirst{1.5, &anyFirst{V: "x"}}, &anyLast{&anyLast{V: "x"}, 1.5}
	for _, tc := range []struct{ in, into any }{{first, new(anyFirst)}, {last, new(anyLast)}} {
		c := vom.New()
		data, err := c.Append(nil, tc.in)
		if err = errors.Join(err, c.Unmarshal(data, tc.into)); err != nil || !reflect.DeepEqual(tc.into, tc.in) {
			t.Errorf("got %+v, %v", tc.into, err)
		}
	}
}

type (
	// Generic has no method that names it.
	Generic[T any] struct{ V T }
	// Around has the method from what it embeds, which is not its own name.
	Around struct {
		Inner
		Z int32
	}
	untold struct{ A int }
	wrong  struct{ A int }
	odd    int
	level  uint8
)

func (odd) VDLReflect(struct{ Enum string }) {}

func (wrong) VDLReflect(struct{ Union struct{ A int } }) {}

func (*level) VDLReflect(struct{ Enum struct{ Low, High string } }) {}

// TestNames reads the names of types off the errors of what does not go into a channel's place.
func TestNames(t *testing.T) {
	t.Parallel()
	c := vom.New()
	const here = "github.com/cb02dfca/micro/pkg/codec/vom_test."
	for _, tc := range []struct {
		in   any
		want string
	}{
		{Generic[int32]{1}, here + "Generic[int32]"},
		{Around{Z: 1}, here + "Around"},
		{untold{1}, here + "untold"},
		{level(1), here + "level"},
		{Inner{}, "example.com/vec.Inner"},
		{[]map[string]*Inner{}, "[]map[string]?example.com/vec.Inner"},
		{[2]map[int8]struct{}{}, "[2]set[int8]"},
	} {
		data, err := c.Append(nil, tc.in)
		if err != nil {
			t.Errorf("%T: %v", tc.in, err)
			continue
		}
		var e *vom.Error
		if err := c.Unmarshal(data, new(bool)); !errors.As(err, &e) || e.Type != tc.want {
			t.Errorf("%T: got %v, want type %s", tc.in, err, tc.want)
		}
	}
	for _, v := range []any{odd(1), wrong{}, level(2), Color(-1), map[float64]int{math.NaN(): 1}} {
		if out, err := c.Append([]byte("x"), v); !errors.Is(err, codec.ErrUnsupported) || string(out) != "x" {
			t.Errorf("%T: got %q, %v", v, out, err)
		}
	}
}

// TestErrorsSayWhere: an error has the offset, the type and the field.
func TestErrorsSayWhere(t *testing.T) {
	t.Parallel()
	c := vom.New()
	data, err := c.Append(nil, []struct{ In struct{ C string } }{{struct{ C string }{"x"}}})
	if err != nil {
		t.Fatal(err)
	}
	var e *vom.Error
	if err := c.Unmarshal(data, new([]struct{ In struct{ C int } })); !errors.As(err, &e) || e.Field != "In.C" || e.Type != "[]struct" || e.Offset != len(data)-7 {
		t.Errorf("got %v, of %d bytes", err, len(data))
	}
	if err := c.Unmarshal(data[:len(data)-1], new(any)); !errors.As(err, &e) || e.Type != "[]struct" {
		t.Errorf("got %v", err)
	}
	long := strings.Repeat("\x00\n", 500) // a name from outside
	bad := append([]byte{0x81, 0x51}, uvarint(len(long)+8)...)
	bad = append(append(append(bad, 0, 0), uvarint(len(long))...), long...)
	bad = append(bad, 1, 9, 0xe1, 0x52, 2)
	if err := c.Unmarshal(bad, new(bool)); err == nil || len(err.Error()) > 400 || strings.ContainsAny(err.Error(), "\x00\n") {
		t.Errorf("got %q", err)
	}
}

// TestOldContentIsLost: what a variable held before is not mixed with what is read, but for fields that VOM does not see.
func TestOldContentIsLost(t *testing.T) {
	t.Parallel()
	c := vom.New()
	data, err := c.Append(nil, Hidden{A: 1})
	if err != nil {
		t.Fatal(err)
	}
	h := Hidden{A: 7, b: 8, C: 9}
	if err := c.Unmarshal(data, &h); err != nil || h != (Hidden{A: 1, b: 8}) {
		t.Errorf("got %v, %v", h, err)
	}
	if data, err = c.Append(nil, Seven{Method: "m"}); err != nil {
		t.Fatal(err)
	}
	s := Seven{Service: "x", Header: map[string]string{"a": "b"}, Body: []byte("x")}
	kept := s.Body
	if err := c.Unmarshal(data, &s); err != nil || !reflect.DeepEqual(s, Seven{Method: "m"}) || string(kept) != "x" {
		t.Errorf("got %v, %v", s, err)
	}
}

// TestManyDefinitions: bodies that begin with ever new definitions do not make a codec forget how to read.
func TestManyDefinitions(t *testing.T) {
	t.Parallel()
	c := vom.New()
	usual, err := c.Append(nil, Seven{Method: "m"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5000 {
		n := fmt.Sprintf("%016d", i)
		data := append(append([]byte{0x81, 0x51, 0x16, 0, 0, 16}, n...), 0x01, 0x03, 0xe1, 0x52, 0x01, 'x')
		var got any
		if err := c.Unmarshal(data, &got); err != nil || got != "x" {
			t.Fatalf("got %v, %v", got, err)
		}
		if i%100 == 0 {
			var s Seven
			if err := c.Unmarshal(usual, &s); err != nil || s.Method != "m" {
				t.Fatalf("got %v, %v", s, err)
			}
		}
	}
}

type everything struct {
	All  request
	More Wide
	Un   Shape
	Opt  *One
	None *One
	Anys []any
	Keys map[[2]int16]map[Inner]bool
	Sets map[Inner]struct{}
	Big  [3]Wide
	C128 complex128
	Typ  [2][]Color
	End  string
}

func newEverything() *everything {
	wide := Wide{B: true, U8: 200, U16: 300, I8: -5, F32: 0.5, F64: 0.1, S: "s", Arr: [2]int16{0, 7}, Set: map[string]struct{}{"e": {}}, L: []string{"l"}, Any: int64(9)}
	return &everything{
		All: *newRequest(), More: wide, Un: ShapeBox{Inner{X: 1}}, Opt: &One{"o"}, Anys: []any{Box{Box{1}}, nil, ShapeLabel{"l"}},
		Keys: map[[2]int16]map[Inner]bool{{1, 2}: {{3, 4}: true}, {}: nil}, Sets: map[Inner]struct{}{{5, 6}: {}}, Big: [3]Wide{1: wide}, C128: 1i,
		Typ: [2][]Color{{1}, {0, 2}}, End: "end",
	}
}

// TestUnknownFieldsAreSkipped reads one field of a struct with fields of every kind, and that cut off anywhere.
func TestUnknownFieldsAreSkipped(t *testing.T) {
	t.Parallel()
	c := vom.New()
	data, err := c.Append(nil, newEverything())
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ End string }
	if err := c.Unmarshal(data, &got); err != nil || got.End != "end" {
		t.Errorf("got %v, %v", got, err)
	}
	for i := 1; i < len(data); i++ {
		var e *vom.Error
		for _, v := range []any{&got, new(any), new(everything)} {
			if err := c.Unmarshal(data[:i], v); !errors.As(err, &e) || e.Offset > i {
				t.Errorf("the first %d bytes of %d into %T: %v", i, len(data), v, err)
			}
		}
	}
	all, want := new(everything), newEverything()
	want.Anys = []any{map[string]any{"V": map[string]any{"V": int64(1)}}, nil, map[string]any{"Label": "l"}}
	if err := c.Unmarshal(data, all); err != nil || !reflect.DeepEqual(all, want) {
		t.Errorf("got %+v, %v", all, err)
	}
}

// TestEverythingIntoAny looks at what VOM's types are read as without a Go type, sent and left out.
func TestEverythingIntoAny(t *testing.T) {
	t.Parallel()
	c := vom.New()
	read := func(v any) map[string]any {
		t.Helper()
		data, err := c.Append(nil, v)
		var got any
		if err = errors.Join(err, c.Unmarshal(data, &got)); err != nil {
			t.Fatal(err)
		}
		return got.(map[string]any)
	}
	inner := func(x, y int32) map[string]any { return map[string]any{"X": x, "Y": y} }
	full, empty := read(newEverything()), read(everything{})
	wide := map[string]any{
		"B": false, "U8": byte(0), "U16": uint16(0), "U32": uint32(0), "U64": uint64(0), "I8": int8(0), "I16": int16(0), "I32": int32(0), "I64": int64(0),
		"F32": float32(0), "F64": 0.0, "S": "", "Arr": []int16{0, 0}, "Set": map[string]struct{}{}, "L": []string{}, "Any": nil,
	}
	for _, tc := range []struct {
		from map[string]any
		name string
		want any
	}{
		{full, "Un", map[string]any{"Box": inner(1, 0)}},
		{full, "Opt", map[string]any{"Name": "o"}},
		{full, "None", nil},
		{full, "Anys", []any{map[string]any{"V": map[string]any{"V": int64(1)}}, nil, map[string]any{"Label": "l"}}},
		{full, "Keys", []any{[]any{[]int16{0, 0}, []any{}}, []any{[]int16{1, 2}, []any{[]any{inner(3, 4), true}}}}},
		{full, "Sets", []any{inner(5, 6)}},
		{full, "C128", 1i},
		{full, "Typ", []any{[]string{"Green"}, []string{"Red", "Blue"}}},
		{full["All"].(map[string]any), "By", []any{[]any{inner(1, 2), []float64{0.5}}, []any{inner(0, 0), []float64{}}}},
		{full["All"].(map[string]any), "Err", &vom.WireError{ID: "id", Retry: vom.RetryBackoff, Msg: "m", Params: []any{"p"}}},
		{full["All"].(map[string]any), "Grid", []any{[]uint16{1, 2, 3}, []uint16{0, 0, 65535}}},
		{full["All"].(map[string]any), "Set", map[int16]struct{}{-3: {}, 7: {}}},
		{empty, "More", wide},
		{empty, "Un", map[string]any{"Circle": 0.0}},
		{empty, "Opt", nil},
		{empty, "Anys", []any{}},
		{empty, "Keys", []any{}},
		{empty, "Sets", []any{}},
		{empty, "Big", []any{wide, wide, wide}},
		{empty, "C128", 0i},
		{empty, "Typ", []any{[]string{}, []string{}}},
		{empty["All"].(map[string]any), "Color", "Red"},
		{empty["All"].(map[string]any), "When", time.Time{}},
		{empty["All"].(map[string]any), "For", time.Duration(0)},
		{empty["All"].(map[string]any), "Err", nil},
		{empty["All"].(map[string]any), "Grid", []any{[]uint16{0, 0, 0}, []uint16{0, 0, 0}}},
		{empty["All"].(map[string]any), "Meta", map[string]string{}},
		{read(struct {
			A [2]Color
			B One
		}{B: One{"x"}}), "A", []string{"Red", "Red"}},
	} {
		if got := tc.from[tc.name]; !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: got %#v, want %#v", tc.name, got, tc.want)
		}
	}
}

// TestDepthOfWhatIsWritten: what leads to itself is refused, and so is what would not be read.
func TestDepthOfWhatIsWritten(t *testing.T) {
	t.Parallel()
	c := vom.New()
	node := &Node{}
	node.Next = node
	var loop any
	loop = &loop
	dir := Dir{}
	dir["self"] = dir
	for _, v := range []any{node, loop, []any{loop}, dir} {
		if _, err := c.Append(nil, v); !errors.Is(err, codec.ErrUnsupported) {
			t.Errorf("%T: %v", v, err)
		}
	}
	var nested any
	for depth := 1; depth <= vom.MaxDepth+1; depth++ {
		nested = []any{nested}
		data, err := c.Append(nil, nested)
		if (err == nil) != (depth <= vom.MaxDepth) {
			t.Fatalf("depth %d: %v", depth, err)
		}
		var got any
		if err == nil && (c.Unmarshal(data, &got) != nil || !reflect.DeepEqual(got, nested)) {
			t.Fatalf("depth %d: got %v", depth, got)
		}
	}
}

// TestFirstUse: types become known while others are used.
func TestFirstUse(t *testing.T) {
	t.Parallel()
	c := vom.New()
	values := []any{newEverything(), newRequest(), Outer{}, &Node{}, []Tree{{}}, Paint{}, Box{Wide{}}, &Chain{V: Inner{}}, Twice{A: []Inner{{}}}, errors.New("x")}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range values {
				v := values[(i+j)%len(values)]
				data, err := c.Append(nil, v)
				if err = errors.Join(err, c.Unmarshal(data, new(any))); err != nil {
					t.Errorf("%T: %v", v, err)
				}
			}
		})
	}
	wg.Wait()
}
