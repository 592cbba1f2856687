package json_test

import (
	stdjson "encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/codec/codectest"
	"github.com/cb02dfca/micro/pkg/codec/json"
)

type request struct {
	Name  string            `json:"name"`
	Times int64             `json:"times,omitempty"`
	Tags  []string          `json:"tags"`
	Meta  map[string]string `json:"meta,omitempty"`
	Data  []byte            `json:"data,omitempty"`
	Next  *request          `json:"next,omitempty"`
}

func lists(depth int) []byte {
	return []byte(strings.Repeat("[", depth) + strings.Repeat("]", depth))
}

func harness(c *json.Codec) codectest.Harness {
	req := request{Name: "<Ada> & \u2028 é \x00", Times: math.MinInt64, Tags: []string{"a", ""}, Meta: map[string]string{"k": "v"}, Data: []byte{0, 255}, Next: &request{Tags: []string{}}}
	raw := stdjson.RawMessage(` {"a" : [1, 2.50]} `)
	words, number := []string{"x"}, 1.5
	newRequest := func() any { return new(request) }
	h := codectest.Harness{
		Codec: c,
		Values: []codectest.Value{
			{Name: "struct", In: req, New: newRequest, Want: &req},
			{Name: "pointer", In: &req, New: newRequest, Want: &req},
			{Name: "list", In: words, New: func() any { return new([]string) }, Want: &words},
			{Name: "number", In: number, New: func() any { return new(float64) }, Want: &number},
			{Name: "null", In: nil, New: newRequest, Want: new(request)},
			{Name: "raw", In: raw, New: func() any { return new(stdjson.RawMessage) }, Want: &raw},
			{Name: "pointer to raw", In: &raw, New: func() any { return new(stdjson.RawMessage) }, Want: &raw},
		},
		Foreign: []any{make(chan int), func() {}, (chan int)(nil)},
		Garbage: []codectest.Data{
			{Name: "no JSON", Data: []byte("{"), New: newRequest},
			{Name: "single quotes", Data: []byte(`{'name':1}`), New: newRequest},
			{Name: "wrong type", Data: []byte(`{"name":1}`), New: newRequest},
			{Name: "two values", Data: []byte(`{} {}`), New: newRequest},
			{Name: "blank", Data: []byte("  "), New: newRequest},
			{Name: "zero bytes", Data: []byte("{}\x00"), New: newRequest},
			{Name: "raw, no JSON", Data: []byte(`{"a":}`), New: func() any { return new(stdjson.RawMessage) }},
			{Name: "raw, two values", Data: []byte(`1 2`), New: func() any { return new(stdjson.RawMessage) }},
			{Name: "message, no JSON", Data: []byte(`{`), New: func() any { return new(descriptorpb.FileDescriptorProto) }},
			{Name: "message, wrong type", Data: []byte(`{"name":1}`), New: func() any { return new(descriptorpb.FileDescriptorProto) }},
		},
		Nested: &codectest.Nested{Make: lists, New: func() any { return new(any) }, Max: json.MaxDepth},
	}
	return h
}

func TestStrict(t *testing.T) {
	t.Parallel()
	codectest.Run(t, harness(json.Strict()))
}

func TestLenient(t *testing.T) {
	t.Parallel()
	h := harness(json.New())
	h.Nested.Max = 10_000 // encoding/json's own bound
	codectest.Run(t, h)
}

func messages(c *json.Codec) codectest.Harness {
	file := &descriptorpb.FileDescriptorProto{
		Name:        proto.String("<a>.proto"),
		Dependency:  []string{"b.proto"},
		MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("A")}},
		EnumType:    []*descriptorpb.EnumDescriptorProto{{Value: []*descriptorpb.EnumValueDescriptorProto{{Number: proto.Int32(-1)}}}},
	}
	return codectest.Harness{
		Codec: c,
		Values: []codectest.Value{
			{Name: "message", In: file, New: func() any { return new(descriptorpb.FileDescriptorProto) }, Want: file},
			{Name: "number", In: wrapperspb.Int64(math.MaxInt64), New: func() any { return new(wrapperspb.Int64Value) }, Want: wrapperspb.Int64(math.MaxInt64)},
		},
		Nested: &codectest.Nested{Make: lists, New: func() any { return new(structpb.ListValue) }, Max: json.MaxDepth},
		Equal:  func(got, want any) bool { return proto.Equal(got.(proto.Message), want.(proto.Message)) },
	}
}

func TestMessages(t *testing.T) {
	t.Parallel()
	codectest.Run(t, messages(json.Strict()))
}

// byEncoding takes an empty map for none, as omitempty does.
func byEncoding(h codectest.Harness) codectest.Harness {
	h.Equal = func(got, want any) bool {
		a, errA := h.Codec.Append(nil, got)
		b, errB := h.Codec.Append(nil, want)
		return errA == nil && errB == nil && string(a) == string(b)
	}
	return h
}

func FuzzStrict(f *testing.F)   { codectest.Fuzz(f, byEncoding(harness(json.Strict()))) }
func FuzzLenient(f *testing.F)  { codectest.Fuzz(f, byEncoding(harness(json.New()))) }
func FuzzMessages(f *testing.F) { codectest.Fuzz(f, messages(json.Strict())) }

func TestAppend(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		v    any
		want string
	}{
		{"no escapes for HTML, no newline", request{Name: "<a&b>"}, `{"name":"<a&b>","tags":null}`},
		{"null", nil, `null`},
		{"raw as it is", stdjson.RawMessage(`{"a" : 1.0}`), `{"a" : 1.0}`},
		{"raw, empty", stdjson.RawMessage(nil), `null`},
		{"raw, no pointer", (*stdjson.RawMessage)(nil), `null`},
		{"raw inside", map[string]any{"a": stdjson.RawMessage(`[1]`)}, `{"a":[1]}`},
		{"a message's 64 bits are a string", wrapperspb.Int64(5), `"5"`},
	} {
		if got, err := json.New().Append(nil, tc.v); err != nil || string(got) != tc.want {
			t.Errorf("%s: got %s, %v, want %s", tc.name, got, err, tc.want)
		}
	}
}

type failing struct{}

func (failing) MarshalJSON() ([]byte, error) { return nil, errors.ErrUnsupported }

func TestAppendErrors(t *testing.T) {
	t.Parallel()
	loop := map[string]any{}
	loop["self"] = loop
	for _, tc := range []struct {
		name        string
		v           any
		unsupported bool
	}{
		{"NaN", math.NaN(), true},
		{"a circle", loop, true},
		{"a marshaler's own failure", []any{"begun", failing{}}, false},
		{"raw, no JSON", stdjson.RawMessage(`{`), false},
		{"a message with invalid UTF-8", wrapperspb.String("\xff"), false},
	} {
		dst := []byte("prefix")
		out, err := json.New().Append(dst, tc.v)
		if err == nil || string(out) != "prefix" || !strings.HasPrefix(err.Error(), "codec/json: ") {
			t.Errorf("%s: got %q, %v", tc.name, out, err)
		}
		if errors.Is(err, codec.ErrUnsupported) != tc.unsupported {
			t.Errorf("%s: %v: unsupported, want %v", tc.name, err, tc.unsupported)
		}
	}
}

func TestUnknownFields(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		into func() any
		body string
	}{
		{"struct", func() any { return new(request) }, `{"name":"x","more":1}`},
		{"struct inside", func() any { return new(request) }, `{"next":{"more":1}}`},
		{"message", func() any { return new(descriptorpb.FileDescriptorProto) }, `{"name":"x","more":1}`},
	} {
		if err := json.New().Unmarshal([]byte(tc.body), tc.into()); err != nil {
			t.Errorf("%s, lenient: %v", tc.name, err)
		}
		err := json.Strict().Unmarshal([]byte(tc.body), tc.into())
		if err == nil || !strings.Contains(err.Error(), `unknown field "more"`) {
			t.Errorf("%s, strict: got %v", tc.name, err)
		}
	}
}

// TestMessageForms reads what go-micro's versions write: plain encoding/json on the generated struct, and protojson.
func TestMessageForms(t *testing.T) {
	t.Parallel()
	want := &descriptorpb.FieldDescriptorProto{Name: proto.String("x"), TypeName: proto.String(".a"), Number: proto.Int32(7), Type: descriptorpb.FieldDescriptorProto_TYPE_BOOL.Enum()}
	for _, body := range []string{
		`{"name":"x","typeName":".a","number":7,"type":"TYPE_BOOL"}`,
		`{"name":"x","type_name":".a","number":"7","type":8}`,
	} {
		got := new(descriptorpb.FieldDescriptorProto)
		if err := json.Strict().Unmarshal([]byte(body), got); err != nil || !proto.Equal(got, want) {
			t.Errorf("%s: got %v, %v", body, got, err)
		}
	}
	for _, body := range []string{`5`, `"5"`, `5.0`} {
		got := new(wrapperspb.Int64Value)
		if err := json.Strict().Unmarshal([]byte(body), got); err != nil || got.GetValue() != 5 {
			t.Errorf("int64 from %s: got %v, %v", body, got, err)
		}
	}
}

func TestErrorsSayWhere(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		body, text, field string
		offset            int64
	}{
		{`{"name":`, "codec/json: unexpected end of the data", "", -1},
		{`{"name":x}`, `codec/json: at offset 9: invalid character 'x' looking for beginning of value`, "", 9},
		{`{"next":{"times":"abc"}}`, `codec/json: at offset 22: field "next.times": want int64, got string`, "next.times", 22},
		{`{"times":1.5}`, `codec/json: at offset 12: field "times": want int64, got number 1.5`, "times", 12},
		{`[]`, `codec/json: at offset 1: want json_test.request, got array`, "", 1},
		{`{} x`, `codec/json: at offset 3: more data after the value`, "", 3},
		{string(lists(65)), `codec/json: at offset 64: more than 64 arrays and objects inside each other`, "", 64},
		{`{"name":"[[[{{{\"[["} `, "codec/json: ok", "", 0},
	} {
		err := json.Strict().Unmarshal([]byte(tc.body), new(request))
		if tc.text == "codec/json: ok" {
			if err != nil {
				t.Errorf("%s: %v", tc.body, err)
			}
			continue
		}
		var e *json.Error
		if !errors.As(err, &e) {
			t.Errorf("%s: %v (%T)", tc.body, err, err)
			continue
		}
		if e.Error() != tc.text || e.Field != tc.field || e.Offset != tc.offset {
			t.Errorf("%s:\ngot  %s\nwant %s\nfield %q at %d", tc.body, e, tc.text, e.Field, e.Offset)
		}
	}
}

// TestOffsetsOfTheNext: what was decoded before does not count in the offsets of an error.
func TestOffsetsOfTheNext(t *testing.T) {
	t.Parallel()
	for _, c := range []*json.Codec{json.New(), json.Strict()} {
		for i, body := range []string{`{"name":x}`, `{"times":1.5}`, `{} x`, `5 5`, `{"name":`} {
			for _, good := range []string{`{"name":"x"}`, " {\"name\":\"y\"} \r\n", `{"tags":["` + strings.Repeat("x", 100_000) + `"]}`} {
				if err := c.Unmarshal([]byte(good), new(request)); err != nil {
					t.Fatal(err)
				}
			}
			var e *json.Error
			want := []int64{9, 12, 3, 2, -1}[i]
			var v any = new(request)
			if body == "5 5" {
				v = new(int)
			}
			if err := c.Unmarshal([]byte(body), v); !errors.As(err, &e) || e.Offset != want {
				t.Errorf("%s: %v, want offset %d", body, err, want)
			}
		}
	}
}

// TestDecodingWithinDecoding: a value whose own method uses the codec that decodes it.
func TestDecodingWithinDecoding(t *testing.T) {
	t.Parallel()
	outer, inner := nesting{codec: json.Strict()}, `{\"name\":\"x\"}`
	if err := outer.codec.Unmarshal([]byte(`"`+inner+`"`), &outer); err != nil || outer.in.Name != "x" {
		t.Errorf("got %+v, %v", outer.in, err)
	}
}

type nesting struct {
	codec *json.Codec
	in    request
}

func (n *nesting) UnmarshalJSON(data []byte) error {
	var text string
	if err := n.codec.Unmarshal(data, &text); err != nil {
		return err
	}
	return n.codec.Unmarshal([]byte(text), &n.in)
}

func TestUnmarshalNeedsAPointer(t *testing.T) {
	t.Parallel()
	for _, v := range []any{nil, request{}, (*request)(nil), (*stdjson.RawMessage)(nil), (*wrapperspb.Int64Value)(nil)} {
		if err := json.Strict().Unmarshal([]byte(`{}`), v); !errors.Is(err, codec.ErrUnsupported) {
			t.Errorf("%T: got %v", v, err)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	c, dst := json.New(), make([]byte, 0, 1<<10)
	v := &request{Name: "Ada", Times: 3, Tags: []string{"a"}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Append(dst, v); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkUnmarshalStrict(b *testing.B) {
	c, data := json.Strict(), []byte(`{"name":"Ada","times":3,"tags":["a"]}`)
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Unmarshal(data, new(request)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkUnmarshalLenient(b *testing.B) {
	c, data := json.New(), []byte(`{"name":"Ada","times":3,"tags":["a"]}`)
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Unmarshal(data, new(request)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkKilobyte is about 1 KiB, most of it one text.
func BenchmarkKilobyte(b *testing.B) {
	v := &request{Name: strings.Repeat("x", 960), Times: 3, Tags: []string{"a"}}
	m := wrapperspb.String(v.Name)
	raw := stdjson.RawMessage(`{"name":"` + v.Name + `"}`)
	for _, bc := range []struct {
		name    string
		in, out any
	}{{"struct", v, new(request)}, {"message", m, new(wrapperspb.StringValue)}, {"raw", raw, new(stdjson.RawMessage)}} {
		c, dst := json.Strict(), make([]byte, 0, 2<<10)
		data, err := c.Append(nil, bc.in)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(bc.name+"/Append", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Append(dst, bc.in); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(bc.name+"/Unmarshal", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := c.Unmarshal(data, bc.out); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
