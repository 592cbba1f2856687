package mapping_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"net/netip"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/codec/bson"
	"github.com/cb02dfca/micro/pkg/codec/msgpack"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// codecs are those that stand on the package.
var codecs = map[string]struct{ lenient, strict codec.Codec }{
	"msgpack": {msgpack.New(), msgpack.Strict()},
	"bson":    {bson.New(), bson.Strict()},
}

func each(t *testing.T, test func(t *testing.T, lenient, strict codec.Codec)) {
	t.Parallel()
	for name, c := range codecs {
		t.Run(name, func(t *testing.T) { test(t, c.lenient, c.strict) })
	}
}

type (
	Base struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	}
	Tagged   struct{ Deep int }
	Inline   struct{ Shallow int }
	Left     struct{ Twice, OnlyLeft int }
	Right    struct{ Twice, OnlyRight int }
	hidden   struct{ Shown string }
	Embedded struct {
		Name string `json:"name"` // hides Base's
		Base
		Tagged `json:"tagged"` // a field, since it has a name
		*Inline
		Left // both have Twice, so neither shows it
		Right
		hidden
		time.Month
	}
	Options struct {
		Untagged   int
		Skipped    int    `json:"-"`
		Odd        int    `json:"a b/c"`
		Kept       string `json:",omitempty"`
		Text       string `json:"text,omitempty"`
		List       []int  `json:"list,omitempty"`
		Struct     Base   `json:"struct,omitempty"`
		Zero       Base   `json:"zero,omitzero"`
		Time       time.Time
		OmitTime   time.Time  `json:"omitTime,omitempty"`
		ZeroTime   time.Time  `json:"zeroTime,omitzero"`
		Pointer    *int       `json:"pointer,omitempty"`
		PointerNil *int       `json:"pointerNil"`
		Interface  any        `json:"interface,omitempty"`
		Array      [0]int     `json:"array,omitempty"`
		OwnZero    ownZero    `json:"ownZero,omitzero"`
		PtrZero    pointerOwn `json:"ptrZero,omitzero"`
		unexported int
	}
	Quoted struct {
		I int64       `json:"i,string"`
		U uint8       `json:"u,string"`
		F float64     `json:"f,string"`
		B bool        `json:"b,string"`
		S string      `json:"s,string"`
		P *int        `json:"p,string"`
		N json.Number `json:"n,string"`
	}
	Kinds struct {
		I8        int8
		I16       int16
		I32       int32
		I64       int64
		U8        uint8
		U16       uint16
		U32       uint32
		U64       uint64
		F32       float32
		F64       float64
		Bool      bool
		Text      string
		Bytes     []byte
		NoBytes   []byte
		Fixed     [3]byte
		List      []string
		NoList    []string
		Map       map[string]int
		NoMap     map[string]int
		ByInt     map[int8]string
		ByUint    map[uint]string
		ByAddr    map[netip.Addr]bool
		ByKind    map[kind]int
		Any       any
		Pointer   **int
		Duration  time.Duration
		Time      time.Time
		Addr      netip.Addr
		URL       url.URL
		Number    json.Number
		Big       *big.Int
		Raw       json.RawMessage
		Color     color
		ByPointer pointed
		Letters   []letter
	}
	Tree struct {
		Left, Right *Tree
		Kids        []Tree
		ByName      map[string]Tree
	}
)

type ownZero int

func (o ownZero) IsZero() bool { return o == 7 }

type pointerOwn struct{ N int }

func (o *pointerOwn) IsZero() bool { return o.N == 7 }

type kind string

// color writes itself as text.
type color int

func (c color) MarshalText() ([]byte, error) { return []byte(strings.Repeat("#", int(c))), nil }
func (c *color) UnmarshalText(text []byte) error {
	*c = color(len(text))
	return nil
}

// pointed writes itself as JSON, where it has an address.
type pointed struct{ n int }

func (p *pointed) MarshalJSON() ([]byte, error) { return json.Marshal(map[string]int{"n": p.n}) }
func (p *pointed) UnmarshalJSON(text []byte) error {
	var m map[string]int
	err := json.Unmarshal(text, &m)
	p.n = m["n"]
	return err
}

// letter is a byte that writes itself as text: a list of them is no bytes.
type letter byte

func (l letter) MarshalText() ([]byte, error) { return []byte{byte(l)}, nil }
func (l *letter) UnmarshalText(text []byte) error {
	*l = letter(text[0])
	return nil
}

// oddTags is a struct with tags that encoding/json takes for something else than they seem, or for nothing.
func oddTags() any {
	var fields []reflect.StructField
	for i, tag := range []string{`json:"-,"`, `json:"no\"name"`, `json:"string,string"`, `json:"none,nonsense"`, `msgpack:"x" bson:"x"`} {
		fields = append(fields, reflect.StructField{Name: string(rune('A' + i)), Type: reflect.TypeFor[[]int](), Tag: reflect.StructTag(tag)})
	}
	v := reflect.New(reflect.StructOf(fields)).Elem()
	v.Field(0).Set(reflect.ValueOf([]int{1}))
	return v.Interface()
}

func pointer[T any](v T) *T { return &v }

// values are of every kind that encoding/json writes.
func values() map[string]any {
	at := time.Date(2026, 11, 23, 10, 20, 30, 4e6, time.UTC)
	return map[string]any{
		"nil": nil, "bool": true, "number": -5, "large": int64(math.MinInt64), "float": 1.5, "text": "é <&>", "list": []any{1, "x", nil},
		"bytes": []byte{0, 255}, "time": at, "nil pointer": (*Base)(nil), "raw": json.RawMessage(`{"b":[1,2.5,"x",null,true,1e3],"a":{}}`),
		"empty key": map[string]any{"": 5}, "empty keys": map[string]any{"": map[string]int{"": 1}}, "empty and others": map[string]int{"": 1, "a": 2},
		"list of none": []int{}, "map of none": map[string]int{}, "empty struct": struct{}{},
		"embedded":     Embedded{Name: "outer", Base: Base{"1", "inner"}, Tagged: Tagged{2}, Inline: &Inline{3}, Left: Left{4, 5}, Right: Right{6, 7}, hidden: hidden{"x"}},
		"embedded nil": Embedded{}, "pointer to struct": &Embedded{Name: "x"},
		"options, empty": Options{}, "options, full": Options{
			Untagged: 1, Skipped: 2, Odd: 4, Kept: "6", Text: "7", List: []int{8}, Struct: Base{ID: "9"}, Zero: Base{ID: "10"},
			Time: at, OmitTime: at, ZeroTime: at, Pointer: pointer(0), Interface: 0, OwnZero: 7, PtrZero: pointerOwn{7}, unexported: 1,
		},
		"options, by pointer": &Options{PtrZero: pointerOwn{7}},
		"quoted":              Quoted{I: math.MinInt64, U: 255, F: 0.1, B: true, S: `a"b`, P: pointer(5), N: "12"},
		"quoted, empty":       Quoted{},
		"odd tags":            oddTags(),
		"kinds, empty":        Kinds{},
		"kinds": &Kinds{
			math.MinInt8, math.MinInt16, math.MinInt32, math.MinInt64, math.MaxUint8, math.MaxUint16, math.MaxUint32, math.MaxInt64, 0.5, -math.MaxFloat64,
			true, "x", []byte{1}, nil, [3]byte{1, 2, 3}, []string{"", "b"}, nil, map[string]int{"b": 1, "a": 2}, nil, map[int8]string{-1: "x"},
			map[uint]string{7: "y"}, map[netip.Addr]bool{netip.MustParseAddr("::1"): true}, map[kind]int{"k": 1},
			map[string]any{"x": []any{1.5, "y", nil, map[string]any{}}}, pointer(pointer(9)), time.Second, at, netip.MustParseAddr("10.0.0.1"),
			url.URL{Scheme: "http", Host: "h"}, "12.5", big.NewInt(123456789), json.RawMessage(`[{"a":1}]`), 3, pointed{4}, []letter{'a', 'b'},
		},
		"no address": Kinds{ByPointer: pointed{4}},
		"tree":       Tree{Left: &Tree{}, Kids: []Tree{{}, {Right: &Tree{}}}, ByName: map[string]Tree{"x": {}}},
		"not UTF-8":  "a\xffb\xfe\xfd", "key that is not UTF-8": map[string]int{"\xff": 1}, "json number": json.Number("1e4"), "wide integers": []json.Number{"1180591620717411303424", "203131202017848980000"},
	}
}

// TestAlike: what a codec writes has the JSON form that encoding/json gives the value. So fields have the same names, are
// left out alike, and types write themselves alike.
func TestAlike(t *testing.T) {
	each(t, func(t *testing.T, c, strict codec.Codec) {
		for name, v := range values() {
			want, err := json.Marshal(v)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			data, err := c.Append(nil, v)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			var got json.RawMessage
			if err := c.Unmarshal(data, &got); err != nil {
				t.Errorf("%s: %v", name, err)
			} else if !bytes.Equal(canonical(t, got), canonical(t, want)) {
				t.Errorf("%s: its JSON form is\n%s\nwant\n%s", name, got, want)
			}
			if v == nil {
				continue
			}
			// And what encoding/json reads back from its own, a codec reads back.
			fromJSON, decoded := reflect.New(reflect.TypeOf(v)), reflect.New(reflect.TypeOf(v))
			if json.Unmarshal(want, fromJSON.Interface()) != nil {
				continue // as with a field that writes itself in a form that it does not read
			}
			if err := strict.Unmarshal(data, decoded.Interface()); err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			a, errA := json.Marshal(decoded.Interface())
			b, errB := json.Marshal(fromJSON.Interface())
			if errA != nil || errB != nil || !bytes.Equal(canonical(t, a), canonical(t, b)) {
				t.Errorf("%s: read back\n%s\nwant\n%s\n%v, %v", name, a, b, errA, errB)
			}
		}
	})
}

// canonical gives a JSON text its keys in order, and its numbers one form.
func canonical(t *testing.T, text []byte) []byte {
	t.Helper()
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestFromJSON: a body that began as JSON is read into the types that it was written from, bytes and times included.
func TestFromJSON(t *testing.T) {
	each(t, func(t *testing.T, _, c codec.Codec) {
		for _, name := range []string{"kinds", "quoted", "embedded", "tree", "bytes", "time"} {
			v := values()[name]
			text, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			data, err := c.Append(nil, json.RawMessage(text))
			if err != nil {
				t.Fatal(err)
			}
			into := reflect.New(reflect.TypeOf(v)).Interface()
			if err := c.Unmarshal(data, into); err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if again, err := json.Marshal(into); err != nil || !bytes.Equal(canonical(t, again), canonical(t, text)) {
				t.Errorf("%s: %v, got\n%s\nwant\n%s", name, err, again, text)
			}
		}
	})
}

// TestAny: what an empty interface gets.
func TestAny(t *testing.T) {
	each(t, func(t *testing.T, c, _ codec.Codec) {
		at := time.UnixMilli(1234).UTC()
		in := map[string]any{
			"nil": nil, "bool": true, "int": int64(-5), "float": 1.5, "whole": 2.0, "nan": math.Inf(1), "text": "x", "bytes": []byte{1}, "no bytes": []byte{},
			"time": at, "list": []any{int64(1), "x", []any{}}, "map": map[string]any{"a": map[string]any{}},
		}
		data, err := c.Append(nil, in)
		if err != nil {
			t.Fatal(err)
		}
		var got any
		if err := c.Unmarshal(data, &got); err != nil || !reflect.DeepEqual(got, in) {
			t.Errorf("got %#v, %v, want %#v", got, err, in)
		}
	})
}

func TestNumbers(t *testing.T) {
	each(t, func(t *testing.T, c, _ codec.Codec) {
		for _, tc := range []struct {
			name     string
			in       any
			into     any
			want     any
			complain string
		}{
			{"a whole float into an integer", 3.0, new(int8), int8(3), ""},
			{"a whole float into an unsigned one", 3.0, new(uint8), uint8(3), ""},
			{"an integer into a float", 3, new(float32), float32(3), ""},
			{"no whole float", 1.5, new(int), nil, "want int, got 1.5"},
			{"NaN into an integer", math.NaN(), new(int64), nil, "want int64, got NaN"},
			{"infinity into an unsigned one", math.Inf(1), new(uint64), nil, "want uint64, got +Inf"},
			{"above int8", 300, new(int8), nil, "want int8, got 300"},
			{"above int64", float64(1 << 63), new(int64), nil, "want int64, got 9.22337"},
			{"above uint8", 300, new(uint8), nil, "want uint8, got 300"},
			{"below uint", -1, new(uint), nil, "want uint, got -1"},
			{"above float32", math.MaxFloat64, new(float32), nil, "want float32, got 1.79"},
			{"text into an integer", "5", new(int), nil, "want int, got string"},
			{"an integer into text", 5, new(string), nil, "want string, got integer"},
			{"an integer into bool", 1, new(bool), nil, "want bool, got integer"},
			{"a list into a map", []int{}, new(map[string]int), nil, "want map[string]int, got list"},
			{"a map into a list", map[string]int{}, new([]int), nil, "want []int, got map"},
			{"an integer into a struct", 5, new(Base), nil, "want mapping_test.Base, got integer"},
			{"bytes into text", []byte("é"), new(string), "é", ""},
			{"bytes that are no text", []byte{0xff}, new(string), nil, "want string, got bytes that are not UTF-8"},
			{"no base64", "%", new([]byte), nil, `want bytes, or a string of base64, got "%"`},
			{"bytes into an array", []byte{1, 2}, new([3]byte), [3]byte{1, 2, 0}, ""},
			{"more elements than an array has", []int{1, 2, 3}, &[2]int{8, 9}, [2]int{1, 2}, ""},
			{"fewer", []int{1}, &[2]int{8, 9}, [2]int{1, 0}, ""},
			{"no time", "today", new(time.Time), nil, `want a time as of RFC 3339, got "today"`},
			{"a number into a time", 5, new(time.Time), nil, "want time.Time, got integer"},
			{"an integer into a number", 5, new(json.Number), json.Number("5"), ""},
			{"a float into a number", 0.25, new(json.Number), json.Number("0.25"), ""},
			{"a text into a number", "1e3", new(json.Number), json.Number("1e3"), ""},
			{"no number", "x", new(json.Number), nil, `want a number, got "x"`},
			{"a wrong key", map[string]int{"x": 1}, new(map[int]int), nil, `want a key of int, got "x"`},
			{"a key above int8", map[string]int{"300": 1}, new(map[int8]int), nil, `want a key of int8, got "300"`},
			{"a wrong text", 5, new(color), nil, "want mapping_test.color, got integer"},
			{"what an address does not read", "x", new(netip.Addr), nil, "netip.Addr: ParseAddr"},
			{"what a big number does not read", "x", new(big.Int), nil, "big.Int: "},
			{"an interface with methods", 5, new(error), nil, "want error, got integer"},
			{"null keeps a number", nil, pointer(5), 5, ""},
			{"null ends a list", nil, &[]int{1}, []int(nil), ""},
			{"null ends a map", nil, &map[string]int{"a": 1}, map[string]int(nil), ""},
			{"a map is added to", map[string]int{"b": 2}, &map[string]int{"a": 1}, map[string]int{"a": 1, "b": 2}, ""},
			{"a list is not", []int{7}, &[]int{1, 2, 3}, []int{7}, ""},
			{"wrong in a string", Base{ID: "x"}, new(struct {
				ID int `json:"id,string"`
			}), nil, `field "id": want the JSON of int in a string, got "x"`},
			{"not quoted", map[string]int{"i": 5, "u": 6}, new(Quoted), Quoted{I: 5, U: 6}, ""},
			{"names by another case", map[string]any{"ID": "1", "NaMe": "2"}, new(Base), Base{"1", "2"}, ""},
		} {
			data, err := c.Append(nil, tc.in)
			if err != nil {
				t.Errorf("%s: %v", tc.name, err)
				continue
			}
			err = c.Unmarshal(data, tc.into)
			got := reflect.ValueOf(tc.into).Elem().Interface()
			switch {
			case tc.complain == "" && (err != nil || !reflect.DeepEqual(got, tc.want)):
				t.Errorf("%s: got %v, %v, want %v", tc.name, got, err, tc.want)
			case tc.complain != "" && (err == nil || !strings.Contains(err.Error(), tc.complain)):
				t.Errorf("%s: got %v, %v, want the error %q", tc.name, got, err, tc.complain)
			}
		}
	})
}

func TestUnknownFields(t *testing.T) {
	each(t, func(t *testing.T, lenient, strict codec.Codec) {
		type outer struct {
			In Base `json:"in"`
		}
		data, err := lenient.Append(nil, map[string]any{"in": map[string]any{"id": "1", "more": []any{1, map[string]any{"a": []byte{1}, "b": time.Now()}, nil}, "name": "2"}})
		if err != nil {
			t.Fatal(err)
		}
		var got outer
		if err := lenient.Unmarshal(data, &got); err != nil || got.In != (Base{"1", "2"}) {
			t.Errorf("lenient: %+v, %v", got, err)
		}
		if err := strict.Unmarshal(data, &got); err == nil || !strings.Contains(err.Error(), `field "in": unknown field "more"`) {
			t.Errorf("strict: %v", err)
		}
	})
}

func TestErrorsSayWhere(t *testing.T) {
	each(t, func(t *testing.T, c, _ codec.Codec) {
		type leaf struct {
			N int8 `json:"n"`
		}
		type outer struct {
			List []struct {
				Leaf *leaf `json:"leaf"`
			} `json:"list"`
		}
		data, err := c.Append(nil, map[string]any{"list": []any{map[string]any{"leaf": map[string]any{"n": "x"}}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Unmarshal(data, new(outer)); err == nil || !strings.HasSuffix(err.Error(), `field "list.leaf.n": want int8, got string`) {
			t.Errorf("got %v", err)
		}
	})
}

// circle is a type that points to itself.
type circle *circle

type failing struct{}

func (failing) MarshalJSON() ([]byte, error) { return nil, errFailing }

type failingText struct{}

func (failingText) MarshalText() ([]byte, error) { return nil, errFailing }

type wrongJSON struct{}

func (wrongJSON) MarshalJSON() ([]byte, error) { return []byte(`{} 5`), nil }

var errFailing = errors.New("failing")

func TestAppendErrors(t *testing.T) {
	loop := map[string]any{}
	loop["self"] = loop
	var self circle
	self = &self
	deep := any(0)
	for range msgpack.MaxDepth + 1 {
		deep = []any{deep}
	}
	var around any
	around = &around
	each(t, func(t *testing.T, c, _ codec.Codec) {
		for _, tc := range []struct {
			name        string
			v           any
			unsupported bool
		}{
			{"a channel within", struct{ C chan int }{}, true},
			{"a complex number", 1i, true},
			{"a map by floats", map[float64]int{1: 1}, true},
			{"a circle of maps", loop, true},
			{"a circle of pointers", self, true},
			{"a circle of interfaces", around, true},
			{"too deep", deep, true},
			{"a number that is none", json.Number("x"), true},
			{"a number that is too large", json.Number("123456789012345678901234567890"), true},
			{"a float that is too large", json.Number("1e999"), true},
			{"a type that fails", []any{"begun", failing{}}, false},
			{"a text that fails", map[string]any{"a": failingText{}}, false},
			{"a key that fails", map[failingText]int{{}: 1}, false},
			{"wrong JSON", wrongJSON{}, false},
			{"raw, no JSON", json.RawMessage(`{`), false},
			{"a message that is not UTF-8", wrapperspb.String("\xff"), false},
		} {
			out, err := c.Append([]byte("prefix"), tc.v)
			if err == nil || string(out) != "prefix" || !strings.HasPrefix(err.Error(), "codec/") || strings.Count(err.Error(), "codec") > 1 {
				t.Errorf("%s: got %q, %v", tc.name, out, err)
			}
			if errors.Is(err, codec.ErrUnsupported) != tc.unsupported {
				t.Errorf("%s: %v: unsupported, want %v", tc.name, err, tc.unsupported)
			}
		}
		// A codec that failed goes on.
		if data, err := c.Append(nil, "x"); err != nil || len(data) == 0 {
			t.Errorf("afterwards: %v", err)
		}
	})
}

func TestUnmarshalNeedsAPointer(t *testing.T) {
	type unexported struct{ *hidden }
	each(t, func(t *testing.T, c, _ codec.Codec) {
		data, err := c.Append(nil, map[string]any{"Shown": "x"})
		if err != nil {
			t.Fatal(err)
		}
		around := new(any)
		*around = around
		for name, v := range map[string]any{
			"nil": nil, "no pointer": Base{}, "nil pointer": (*Base)(nil), "nil message": (*wrapperspb.Int64Value)(nil), "a channel": new(chan int),
			"pointers without end": new(circle), "an interface that holds itself": around, "an embedded pointer that cannot be set": new(unexported),
			"a map by floats": new(map[float64]int),
		} {
			if err := c.Unmarshal(data, v); !errors.Is(err, codec.ErrUnsupported) {
				t.Errorf("%s: got %v", name, err)
			}
		}
	})
}

// TestHeldPointer: an interface that holds a pointer is read into that, as encoding/json does.
func TestHeldPointer(t *testing.T) {
	each(t, func(t *testing.T, c, _ codec.Codec) {
		data, err := c.Append(nil, Base{"1", "2"})
		if err != nil {
			t.Fatal(err)
		}
		in := new(Base)
		held := any(in)
		if err := c.Unmarshal(data, &held); err != nil || *in != (Base{"1", "2"}) || held != in {
			t.Errorf("got %v, %v", in, err)
		}
	})
}

// TestFormerElements: what stood in a list's storage does not show through.
func TestFormerElements(t *testing.T) {
	each(t, func(t *testing.T, c, _ codec.Codec) {
		data, err := c.Append(nil, []map[string]string{{"id": "new"}})
		if err != nil {
			t.Fatal(err)
		}
		got := []Base{{"old", "old"}, {"old", "old"}}
		if err := c.Unmarshal(data, &got); err != nil || !reflect.DeepEqual(got, []Base{{ID: "new"}}) {
			t.Errorf("got %v, %v", got, err)
		}
	})
}

func TestMessages(t *testing.T) {
	each(t, func(t *testing.T, lenient, strict codec.Codec) {
		in := &descriptorpb.FileDescriptorProto{
			Name: proto.String("a.proto"), MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("A")}},
			Options: &descriptorpb.FileOptions{OptimizeFor: descriptorpb.FileOptions_SPEED.Enum()},
		}
		data, err := lenient.Append(nil, in)
		if err != nil {
			t.Fatal(err)
		}
		got := &descriptorpb.FileDescriptorProto{Package: proto.String("old")}
		if err := strict.Unmarshal(data, got); err != nil || !proto.Equal(got, in) {
			t.Errorf("got %v, %v", got, err)
		}
		if data, err = lenient.Append(nil, map[string]any{"name": "a.proto", "more": 1}); err != nil {
			t.Fatal(err)
		}
		if err := lenient.Unmarshal(data, got); err != nil || got.GetName() != "a.proto" {
			t.Errorf("lenient: %v", err)
		}
		if err := strict.Unmarshal(data, got); err == nil || !strings.Contains(err.Error(), `unknown field "more"`) || strings.Contains(err.Error(), "\u00a0") {
			t.Errorf("strict: %v", err)
		}
	})
}

// TestWithin: a type whose methods use the codec that is at work.
func TestWithin(t *testing.T) {
	each(t, func(t *testing.T, c, _ codec.Codec) {
		out := nesting{c, Base{"1", "2"}}
		data, err := c.Append(nil, out)
		if err != nil {
			t.Fatal(err)
		}
		got := nesting{codec: c}
		if err := c.Unmarshal(data, &got); err != nil || got.in != out.in {
			t.Errorf("got %+v, %v", got.in, err)
		}
	})
}

type nesting struct {
	codec codec.Codec
	in    Base
}

func (n nesting) MarshalJSON() ([]byte, error) {
	data, err := n.codec.Append(nil, n.in)
	if err != nil {
		return nil, err
	}
	return json.Marshal(data)
}

func (n *nesting) UnmarshalJSON(text []byte) error {
	var data []byte
	if err := json.Unmarshal(text, &data); err != nil {
		return err
	}
	return n.codec.Unmarshal(data, &n.in)
}

// TestLists: a list of many small elements takes memory in proportion, and all of them arrive.
func TestLists(t *testing.T) {
	each(t, func(t *testing.T, c, _ codec.Codec) {
		in := make([]int, 10_000)
		for i := range in {
			in[i] = i
		}
		data, err := c.Append(nil, in)
		if err != nil {
			t.Fatal(err)
		}
		var got []int
		if err := c.Unmarshal(data, &got); err != nil || !reflect.DeepEqual(got, in) {
			t.Errorf("%d elements, %v", len(got), err)
		}
	})
}
