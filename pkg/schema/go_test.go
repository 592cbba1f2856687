package schema_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	jsoncodec "github.com/cb02dfca/micro/pkg/codec/json"
	"github.com/cb02dfca/micro/pkg/schema"
)

type Kind string

type Inner struct {
	Name  string `json:"name"`
	Count uint8  `json:"count,omitempty"`
}

type hidden struct {
	Promoted int16 `json:"promoted"`
	Clash    int   `json:"clash"`
}

type Outer struct {
	Clash string `json:"clash"`
}

type List []List

// Everything has a field of each kind whose decoding reflection knows in full.
type Everything struct {
	hidden
	*Outer
	Text     string           `json:"text" doc:"some text"`
	Bool     bool             `json:"bool"`
	I8       int8             `json:"i8"`
	I32      int32            `json:"i32"`
	I64      int64            `json:"i64"`
	Int      int              `json:"int"`
	U16      uint16           `json:"u16"`
	U64      uint64           `json:"u64"`
	F32      float32          `json:"f32"`
	F64      float64          `json:"f64"`
	Bytes    []byte           `json:"bytes"`
	Fixed    [2]int8          `json:"fixed"`
	Texts    []string         `json:"texts"`
	Map      map[string]int32 `json:"map"`
	ByNumber map[int8]bool    `json:"byNumber"`
	Inner    Inner            `json:"inner"`
	Pointer  *Inner           `json:"pointer"`
	Many     []*Inner         `json:"many"`
	Again    *Everything      `json:"again"`
	Tree     List             `json:"tree"`
	Quoted   int32            `json:"quoted,string"`
	QuotedP  *uint8           `json:"quotedP,string"`
	QuotedF  float64          `json:"quotedF,string"`
	QuotedB  bool             `json:"quotedB,string"`
	QuotedT  string           `json:"quotedT,string"`
	NoTag    int
	Kind     Kind                           `json:"kind" enum:"a,b"`
	Wait     time.Duration                  `json:"wait"`
	Addr     netip.Addr                     `json:"addr"`
	Nested   map[string][]map[string]*Inner `json:"nested"`
	Skipped  int                            `json:"-"`
}

func of[T any](t *testing.T) *schema.Schema {
	t.Helper()
	return schema.Of(reflect.TypeFor[T]())
}

func text(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestOf(t *testing.T) {
	t.Parallel()
	type Tagged struct {
		Name   string   `json:"name" doc:"who to greet" required:"true" example:"Ada"`
		Times  int32    `json:"times,omitempty" default:"1" min:"1" max:"10"`
		Mood   string   `json:"mood" enum:"glad, sad" default:"glad"`
		Levels []int    `json:"levels" default:"[1,2]"`
		Bad    int      `json:"bad" default:"many"`
		Inner  *Inner   `json:"inner" doc:"a part"`
		Zip    string   `json:"zip" example:"01234"`
		Odd    chan int `json:"odd"`
	}
	type left struct {
		X int
	}
	type right struct {
		X int
		C int `json:"y"`
	}
	type Hiding struct {
		left
		right
	}
	type Opaque struct {
		Any  any             `json:"any"`
		Raw  json.RawMessage `json:"raw"`
		Time time.Time       `json:"time"`
		Addr netip.Addr      `json:"addr"`
		Num  json.Number     `json:"num"`
		Err  error           `json:"err"`
	}
	for _, tc := range []struct {
		name string
		s    *schema.Schema
		want string
	}{
		{"tags", of[Tagged](t), `{"title":"Tagged","type":"object","properties":{` +
			`"name":{"description":"who to greet","type":"string","examples":["Ada"]},` +
			`"times":{"type":"integer","format":"int32","default":1,"minimum":1,"maximum":10},` +
			`"mood":{"type":"string","enum":["glad","sad"],"default":"glad"},` +
			`"levels":{"type":"array","default":[1,2],"items":{"type":"integer","format":"int64"}},` +
			`"bad":{"type":"integer","format":"int64","default":"many"},` +
			`"inner":{"$ref":"#/$defs/Inner","description":"a part"},` +
			`"zip":{"type":"string","examples":["01234"]},"odd":{}},` +
			`"required":["name"],"additionalProperties":false,` +
			`"$defs":{"Inner":{"title":"Inner","type":"object","properties":{"name":{"type":"string"},"count":{"type":"integer","format":"uint8"}},"additionalProperties":false}}}`},
		{"two fields of one name hide each other", of[Hiding](t),
			`{"title":"Hiding","type":"object","properties":{"y":{"type":"integer","format":"int64"}},"additionalProperties":false}`},
		{"what reflection cannot know", of[Opaque](t), `{"title":"Opaque","type":"object","properties":{` +
			`"any":{},"raw":{},"time":{"type":"string","format":"date-time"},"addr":{"type":"string"},"num":{"type":["number","string"]},"err":{}},"additionalProperties":false}`},
		{"a slice of itself", of[List](t), `{"type":"array","items":{"$ref":"#"}}`},
		{"a map", of[map[uint8]string](t), `{"type":"object","propertyNames":{"type":"string","format":"uint8"},"additionalProperties":{"type":"string"}}`},
		{"bytes", of[[]byte](t), `{"type":"string","contentEncoding":"base64"}`},
		{"an array", of[[3]bool](t), `{"type":"array","maxItems":3,"items":{"type":"boolean"}}`},
		{"no struct", of[int](t), `{"type":"integer","format":"int64"}`},
		{"nothing", schema.Of(nil), `{}`},
		{"a pointer's type", of[**Inner](t), text(t, of[Inner](t))},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if got := text(t, tc.s); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
			back, err := schema.Parse([]byte(tc.want))
			if err != nil {
				t.Fatal(err)
			}
			if got := text(t, back); got != tc.want {
				t.Errorf("read and written again\ngot  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestOfNames(t *testing.T) {
	t.Parallel()
	s := of[Everything](t)
	got := strings.Join(s.Fields(), " ")
	want := "promoted text bool i8 i32 i64 int u16 u64 f32 f64 bytes fixed texts map byNumber inner pointer many again tree quoted quotedP quotedF quotedB quotedT NoTag kind wait addr nested"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

type pair[A, B any] struct {
	First  A `json:"first"`
	Second B `json:"second"`
}

func TestTypeName(t *testing.T) {
	t.Parallel()
	for want, s := range map[string]*schema.Schema{
		"string":            of[string](t),
		"int32":             of[int32](t),
		"int64":             of[int](t),
		"number":            of[float32](t),
		"bool":              of[bool](t),
		"bytes":             of[[]byte](t),
		"time":              of[time.Time](t),
		"any":               of[any](t),
		"[]string":          of[[]string](t),
		"[]Inner":           of[[]*Inner](t),
		"map[string][]bool": of[map[string][]bool](t),
		"map[int8]Inner":    of[map[int8]Inner](t),
		"Inner":             of[Inner](t),
		"pair[Inner,int]":   of[pair[Inner, int]](t),
		"string or null":    {Type: []string{"string", "null"}},
	} {
		if got := s.TypeName(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestAt(t *testing.T) {
	t.Parallel()
	s := of[Everything](t)
	for _, tc := range []struct{ path, want string }{
		{"text", "string"},
		{"TEXT", "string"},
		{"inner.count", "uint8"},
		{"many.0.name", "string"},
		{"map.anything", "int32"},
		{"again.again.pointer.Name", "string"},
		{"nested.x.0.y.count", "uint8"},
		{"none", ""},
		{"text.deeper", ""},
		{"inner.none", ""},
	} {
		at := s.At(strings.Split(tc.path, ".")...)
		got := ""
		if at != nil {
			got = at.TypeName()
		}
		if got != tc.want {
			t.Errorf("At(%s) is %q, want %q", tc.path, got, tc.want)
		}
	}
	if got := s.At().TypeName(); got != "Everything" {
		t.Errorf("At() is %q", got)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat(`{"again":`, 65) + "1" + strings.Repeat("}", 65)
	for _, tc := range []struct{ name, body, want string }{
		{"fits", `{"text":"x","i32":3,"many":[{"name":"y"},null],"again":{"again":null}}`, ""},
		{"nothing", ``, ""},
		{"null", `null`, ""},
		{"any letter case", `{"TEXT":"x","notag":1}`, ""},
		{"a number again and again", `{"i8":1,"i8":2}`, ""},
		{"bytes one by one", `{"bytes":[1,2,255]}`, ""},
		{"more than the array holds", `{"fixed":[1,2,"x",{}]}`, ""},
		{"out of the enum", `{"kind":"c"}`, ""},
		{"wrong type", `{"i32":"abc"}`, `i32: want int32, got "abc"`},
		{"unknown field", `{"txt":1}`, `txt: unknown field, did you mean "text"?`},
		{"unknown field like none", `{"frobnicate":1}`, `frobnicate: unknown field`},
		{"in depth", `{"many":[{"name":"a"},{"name":1}]}`, `many[1].name: want string, got 1`},
		{"several", `{"bool":1,"inner":{"nmae":"x"}}`, `bool: want bool, got 1; inner.nmae: unknown field, did you mean "name"?`},
		{"out of range", `{"i8":300}`, `i8: want int8, got 300 (out of range)`},
		{"a fraction", `{"i8":1.5}`, `i8: want int8, got 1.5`},
		{"a point", `{"i8":1.0}`, `i8: want int8, got 1.0`},
		{"a negative number", `{"u16":-1}`, `u16: want uint16, got -1 (out of range)`},
		{"an object", `{"text":{"a":[]}}`, `text: want string, got an object`},
		{"an array", `{"inner":[{"none":1}]}`, `inner: want Inner, got an array`},
		{"a key", `{"byNumber":{"1":true,"x":true,"999":false}}`, `byNumber.x: want int8 as the key; byNumber.999: want int8 as the key`},
		{"an awkward key", `{"map":{"a.b":"x"}}`, `map["a.b"]: want int32, got "x"`},
		{"control characters", "{\"map\":{\"\\u001b[2J\":\"\u009b\"}}", `map["\x1b[2J"]: want int32, got "\u009b"`},
		{"no base64", `{"bytes":"%"}`, `bytes: want bytes, got "%"`},
		{"a number without its quotes", `{"quoted":1}`, `quoted: want int32 in a string, got 1`},
		{"no object", `[1]`, `want Everything, got an array`},
		{"no JSON", `{"text":`, `not JSON: unexpected end of JSON input`},
		{"two values", `{} {}`, `not JSON: invalid character '{' after top-level value`},
		{"too deep", deep, strings.TrimPrefix(strings.Repeat(".again", 64), ".") + `: more than 64 arrays and objects inside each other`},
		{"a long value", `{"i8":"` + strings.Repeat("é", 100) + `"}`, `i8: want int8, got "` + strings.Repeat("é", 20) + `..."`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if got := lines(of[Everything](t).Check([]byte(tc.body))); tc.name != "too deep" && got != tc.want || !strings.Contains(got, tc.want) {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func lines(problems []schema.Problem) string {
	var all []string
	for _, p := range problems {
		all = append(all, p.String())
	}
	return strings.Join(all, "; ")
}

func TestCheckIsBounded(t *testing.T) {
	t.Parallel()
	body := "[" + strings.Repeat(`"x",`, 1_000_000) + "1]"
	if got := len(of[[]int](t).Check([]byte(body))); got != 100 {
		t.Errorf("%d problems, want 100", got)
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	type Request struct {
		Name  string   `json:"name" required:"true"`
		Mood  string   `json:"mood" enum:"glad,sad"`
		Times int      `json:"times" min:"1" max:"10"`
		Level *float64 `json:"level" enum:"1,2.5"`
	}
	for _, tc := range []struct{ body, want string }{
		{`{"name":"x","mood":"sad","times":10,"level":2.50}`, ""},
		{`{"mood":"mad"}`, `mood: want one of "glad", "sad", got "mad", did you mean "sad"?; name: required, and missing`},
		{`{"name":null}`, `name: required, and missing`},
		{`{"name":"x","times":0,"level":3}`, `times: want 1 or more, got 0; level: want one of 1, 2.5, got 3`},
		{`{"name":"x","times":11}`, `times: want 10 or less, got 11`},
	} {
		s := of[Request](t)
		if got := lines(s.Warnings([]byte(tc.body))); got != tc.want {
			t.Errorf("%s: got %s, want %s", tc.body, got, tc.want)
		}
		if problems := s.Check([]byte(tc.body)); len(problems) > 0 {
			t.Errorf("%s: refused, though the decoder takes it: %v", tc.body, problems)
		}
	}
}

func TestExample(t *testing.T) {
	t.Parallel()
	type Request struct {
		Name  string   `json:"name" example:"Ada"`
		Times int32    `json:"times" default:"1"`
		Mood  string   `json:"mood" enum:"glad,sad"`
		Tags  []string `json:"tags"`
		Inner []*Inner `json:"inner"`
		More  *Request `json:"more"`
	}
	want := `{"name":"Ada","times":1,"mood":"glad","tags":[""],"inner":[{"name":"","count":0}]}`
	if got := string(of[Request](t).Example()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for name, s := range map[string]*schema.Schema{"everything": of[Everything](t), "list": of[List](t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			example := s.Example()
			if problems := s.Check(example); len(problems) > 0 {
				t.Errorf("%s does not pass: %v", example, problems)
			}
		})
	}
	var e Everything
	example := strings.Replace(string(of[Everything](t).Example()), `"addr":""`, `"addr":"::1"`, 1)
	if err := jsoncodec.Strict().Unmarshal([]byte(example), &e); err != nil {
		t.Errorf("%s: %v", example, err)
	}
}

// TestCheckIsTheDecoder holds Check against the decoder with random bodies: it refuses exactly what the decoder refuses.
func TestCheckIsTheDecoder(t *testing.T) {
	t.Parallel()
	s, strict := of[Everything](t), jsoncodec.Strict()
	names := slices.DeleteFunc(s.Fields(), func(name string) bool { return name == "addr" }) // what it reads is its own affair
	names = append(names, "TEXT", "nOTAG", "unknown", "name", "count", "1", "-5", "300", "clash", "")
	r := rand.New(rand.NewPCG(1, 2))
	taken, refused := 0, 0
	for range 10_000 {
		body := randomObject(r, names, goValues, 3)
		err := strict.Unmarshal([]byte(body), new(Everything))
		problems := s.Check([]byte(body))
		if err == nil {
			taken++
		} else {
			refused++
		}
		if (err != nil) != (len(problems) > 0) && !strings.Contains(fmt.Sprint(err), "embedded pointer") {
			t.Fatalf("%s\ndecoder: %v\ncheck:   %v", body, err, problems)
		}
	}
	if taken < 700 || refused < 700 {
		t.Errorf("taken %d, refused %d: the bodies say little", taken, refused)
	}
}

var goValues = []string{
	`null`, `true`, `false`, `"x"`, `""`, `"null"`, `"true"`, `"1"`, `"-1"`, `"007"`, `"1.5"`, `"1e3"`, `"300"`, `" 1"`, `"\"q\""`, `"\"q"`, `"AQI="`, `"AQI"`,
	`"0x10"`, `"-Inf"`, `"1e999"`, `"1_0"`,
	`0`, `-0`, `1`, `-1`, `127`, `128`, `255`, `256`, `65536`, `1.0`, `1.5`, `1e3`, `1e39`, `1e400`, `9223372036854775807`, `9223372036854775808`, `18446744073709551615`, `18446744073709551616`,
	`[]`, `{}`, `[null]`, `[1,2,3]`, `["a","b"]`, `[[],[[]]]`, `{"name":"x"}`, `{"1":true}`, `{"a":1}`, `"::1"`,
}

// randomObject makes an object that is mostly, but not always, near to what a type wants.
func randomObject(r *rand.Rand, names, values []string, depth int) string {
	var b strings.Builder
	b.WriteByte('{')
	for i := range max(1, r.IntN(5)-2) {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%q:%s", names[r.IntN(len(names))], randomValue(r, names, values, depth-1))
	}
	b.WriteByte('}')
	return b.String()
}

func randomValue(r *rand.Rand, names, values []string, depth int) string {
	switch n := r.IntN(10); {
	case depth > 0 && n == 0:
		return "[" + randomValue(r, names, values, depth-1) + "," + randomValue(r, names, values, depth-1) + "]"
	case depth > 0 && n == 1:
		return randomObject(r, names, values, depth-1)
	}
	return values[r.IntN(len(values))]
}

func FuzzCheck(f *testing.F) {
	for _, v := range goValues {
		f.Add([]byte(`{"i8":` + v + `,"again":{"many":[` + v + `]},"quoted":` + v + `}`))
	}
	s, strict := schema.Of(reflect.TypeFor[Everything]()), jsoncodec.Strict()
	f.Fuzz(func(t *testing.T, body []byte) {
		err := strict.Unmarshal(body, new(Everything))
		if problems := s.Check(body); err == nil && len(problems) > 0 {
			t.Errorf("the decoder takes it, the check does not: %v", problems)
		}
	})
}
