package schema_test

import (
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/runtime/protoimpl"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	_ "google.golang.org/protobuf/types/known/durationpb"
	_ "google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	_ "google.golang.org/protobuf/types/known/wrapperspb"

	jsoncodec "github.com/cb02dfca/micro/pkg/codec/json"
	"github.com/cb02dfca/micro/pkg/schema"
)

// The file has, in its proto3 message Thing, a field of each kind; Old is proto2 with a required field.
const thingFile = `
name: "thing.proto" package: "test" syntax: "proto3"
dependency: ["google/protobuf/timestamp.proto", "google/protobuf/duration.proto", "google/protobuf/wrappers.proto", "google/protobuf/struct.proto"]
message_type {
  name: "Thing"
  field { name: "user_name" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
  field { name: "i32" number: 2 type: TYPE_INT32 label: LABEL_OPTIONAL }
  field { name: "i64" number: 3 type: TYPE_INT64 label: LABEL_OPTIONAL }
  field { name: "u32" number: 4 type: TYPE_FIXED32 label: LABEL_OPTIONAL }
  field { name: "u64" number: 5 type: TYPE_FIXED64 label: LABEL_OPTIONAL }
  field { name: "f32" number: 6 type: TYPE_FLOAT label: LABEL_OPTIONAL }
  field { name: "f64" number: 7 type: TYPE_DOUBLE label: LABEL_OPTIONAL }
  field { name: "ok" number: 8 type: TYPE_BOOL label: LABEL_OPTIONAL }
  field { name: "data" number: 9 type: TYPE_BYTES label: LABEL_OPTIONAL }
  field { name: "mood" number: 10 type: TYPE_ENUM type_name: ".test.Mood" label: LABEL_OPTIONAL }
  field { name: "part" number: 11 type: TYPE_MESSAGE type_name: ".test.Thing" label: LABEL_OPTIONAL }
  field { name: "parts" number: 12 type: TYPE_MESSAGE type_name: ".test.Part" label: LABEL_REPEATED }
  field { name: "words" number: 13 type: TYPE_STRING label: LABEL_REPEATED }
  field { name: "left" number: 14 type: TYPE_STRING label: LABEL_OPTIONAL oneof_index: 0 }
  field { name: "right" number: 15 type: TYPE_INT32 label: LABEL_OPTIONAL oneof_index: 0 }
  field { name: "scores" number: 16 type: TYPE_MESSAGE type_name: ".test.Thing.ScoresEntry" label: LABEL_REPEATED }
  field { name: "when" number: 17 type: TYPE_MESSAGE type_name: ".google.protobuf.Timestamp" label: LABEL_OPTIONAL }
  field { name: "boxed" number: 18 type: TYPE_MESSAGE type_name: ".google.protobuf.Int64Value" label: LABEL_OPTIONAL }
  field { name: "free" number: 19 type: TYPE_MESSAGE type_name: ".google.protobuf.Value" label: LABEL_OPTIONAL }
  field { name: "moods" number: 20 type: TYPE_ENUM type_name: ".test.Mood" label: LABEL_REPEATED }
  field { name: "flags" number: 21 type: TYPE_MESSAGE type_name: ".test.Thing.FlagsEntry" label: LABEL_REPEATED }
  field { name: "struct" number: 22 type: TYPE_MESSAGE type_name: ".google.protobuf.Struct" label: LABEL_OPTIONAL }
  nested_type {
    name: "ScoresEntry" options { map_entry: true }
    field { name: "key" number: 1 type: TYPE_INT32 label: LABEL_OPTIONAL }
    field { name: "value" number: 2 type: TYPE_UINT64 label: LABEL_OPTIONAL }
  }
  nested_type {
    name: "FlagsEntry" options { map_entry: true }
    field { name: "key" number: 1 type: TYPE_BOOL label: LABEL_OPTIONAL }
    field { name: "value" number: 2 type: TYPE_MESSAGE type_name: ".test.Part" label: LABEL_OPTIONAL }
  }
  oneof_decl { name: "side" }
}
message_type { name: "Part" field { name: "name" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL } }
enum_type { name: "Mood" value { name: "CALM" number: 0 } value { name: "GLAD" number: 1 } }
source_code_info {
  location { path: [4, 0] span: [1, 1, 1] leading_comments: " Thing is a thing.\n" }
  location { path: [4, 0, 2, 0] span: [1, 1, 1] leading_comments: " who it is\n" }
}
`

const oldFile = `
name: "old.proto" package: "test" syntax: "proto2"
message_type {
  name: "Old"
  field { name: "id" number: 1 type: TYPE_STRING label: LABEL_REQUIRED }
  field { name: "times" number: 2 type: TYPE_INT32 label: LABEL_OPTIONAL default_value: "3" }
}
`

func message(t testing.TB, source, name string) protoreflect.MessageDescriptor {
	t.Helper()
	file := new(descriptorpb.FileDescriptorProto)
	if err := prototext.Unmarshal([]byte(source), file); err != nil {
		t.Fatal(err)
	}
	fd, err := protodesc.NewFile(file, protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	return fd.Messages().ByName(protoreflect.Name(name))
}

func TestOfMessage(t *testing.T) {
	t.Parallel()
	s := schema.OfMessage(message(t, thingFile, "Thing"))
	written := text(t, s)
	for _, want := range []string{
		`{"title":"Thing","description":"Thing is a thing.","type":"object","x-protobuf":"test.Thing","properties":{`,
		`"userName":{"description":"who it is","type":"string","x-alias":"user_name"}`,
		`"i64":{"type":["string","integer"],"format":"int64"}`,
		`"mood":{"title":"Mood","type":["string","integer"],"enum":["CALM","GLAD"]}`,
		`"part":{"$ref":"#"}`,
		`"parts":{"type":"array","items":{"$ref":"#/$defs/test.Part"}}`,
		`"left":{"type":"string","x-oneof":"side"}`,
		`"scores":{"type":"object","propertyNames":{"type":"string","format":"int32"},"additionalProperties":{"type":["string","integer"],"format":"uint64"}}`,
		`"when":{"type":"string","format":"date-time"}`,
		`"free":{}`,
		`"$defs":{"test.Part":{"title":"Part","type":"object","x-protobuf":"test.Part","properties":{"name":{"type":"string"}},"additionalProperties":false}}}`,
	} {
		if !strings.Contains(written, want) {
			t.Errorf("%s\nlacks %s", written, want)
		}
	}
	if back, err := schema.Parse([]byte(written)); err != nil || text(t, back) != written {
		t.Errorf("read and written again: %v\n%s", err, text(t, back))
	}
	for path, want := range map[string]string{"user_name": "string", "userName": "string", "USERNAME": "", "i64": "int64", "mood": "Mood", "parts.0": "Part", "scores.7": "uint64", "part.part.data": "bytes"} {
		got := ""
		if at := s.At(strings.Split(path, ".")...); at != nil {
			got = at.TypeName()
		}
		if got != want {
			t.Errorf("At(%s) is %q, want %q", path, got, want)
		}
	}
	old := text(t, schema.OfMessage(message(t, oldFile, "Old")))
	if !strings.Contains(old, `"default":3`) || !strings.Contains(old, `"required":["id"]`) {
		t.Errorf("proto2: %s", old)
	}
}

func TestOfGeneratedMessage(t *testing.T) {
	t.Parallel()
	for _, typ := range []reflect.Type{reflect.TypeFor[descriptorpb.FieldDescriptorProto](), reflect.TypeFor[*descriptorpb.FieldDescriptorProto]()} {
		s := schema.Of(typ)
		if s.Message != "google.protobuf.FieldDescriptorProto" || s.At("typeName").TypeName() != "string" {
			t.Errorf("%v: %s", typ, text(t, s))
		}
	}
	if got := text(t, schema.Of(reflect.TypeFor[timestamppb.Timestamp]())); got != `{"type":"string","format":"date-time","x-protobuf":"google.protobuf.Timestamp"}` {
		t.Errorf("Timestamp: %s", got)
	}
	if got := text(t, schema.Of(reflect.TypeFor[*dynamicpb.Message]())); got != `{}` {
		t.Errorf("a dynamic message's type: %s", got)
	}
}

func TestCheckMessage(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, body, want string }{
		{"fits", `{"userName":"x","i64":"5","part":{"i64":5},"mood":1,"moods":["GLAD"],"f32":"NaN","data":"_-8"}`, ""},
		{"the name in the .proto", `{"user_name":"x"}`, ""},
		{"whole numbers with a point", `{"i32":1.0,"u32":"1e3"}`, ""},
		{"null is absent", `{"i32":null,"left":null,"right":1,"parts":null,"when":null,"free":null}`, ""},
		{"free form", `{"free":{"a":[null,1]},"struct":{"b":null}}`, ""},
		{"letter case", `{"USERNAME":"x"}`, `USERNAME: unknown field, did you mean "userName"?`},
		{"twice", `{"user_name":"x","userName":"x"}`, `userName: given twice`},
		{"a key twice", `{"scores":{"1":1,"1":2}}`, `scores.1: given twice`},
		{"two of a oneof", `{"left":"x","right":1}`, `right: cannot stand beside "left": both are of the oneof "side"`},
		{"an enum's name", `{"mood":"GLAT"}`, `mood: want one of "CALM", "GLAD", got "GLAT", did you mean "GLAD"?`},
		{"null in a list", `{"words":["a",null]}`, `words[1]: want string, got null`},
		{"null at all", `null`, `want Thing, got null`},
		{"a number in a string", `{"i64":" 5"}`, `i64: want int64, got " 5"`},
		{"out of range", `{"i32":3000000000}`, `i32: want int32, got 3000000000 (out of range)`},
		{"bytes one by one", `{"data":[1]}`, `data: want bytes, got an array`},
		{"a key", `{"flags":{"yes":{}}}`, `flags.yes: want bool as the key`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if got := lines(schema.OfMessage(message(t, thingFile, "Thing")).Check([]byte(tc.body))); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
	old := schema.OfMessage(message(t, oldFile, "Old"))
	if got := lines(old.Check([]byte(`{"id":null}`))); got != "id: required, and missing" {
		t.Errorf("proto2: %s", got)
	}
}

func TestExampleOfMessage(t *testing.T) {
	t.Parallel()
	md := message(t, thingFile, "Thing")
	s := schema.OfMessage(md)
	example := s.Example()
	if problems := s.Check(example); len(problems) > 0 {
		t.Errorf("%s: %v", example, problems)
	}
	// A map's example has no entry, and so says nothing wrong.
	if err := jsoncodec.Strict().Unmarshal(example, dynamicpb.NewMessage(md)); err != nil {
		t.Errorf("%s: %v", example, err)
	}
}

var protoValues = append([]string{
	`"CALM"`, `"GLAD"`, `"GLAT"`, `2`, `"NaN"`, `"-Infinity"`, `"_-8"`, `"2026-01-02T03:04:05Z"`, `"2026-01-02t03:04:05z"`, `[{"name":"y"}]`, `["GLAD",1]`,
	`{"1":"5"}`, `{"true":{}}`, `{"maybe":{}}`, `[null]`, `"1.0"`, `10e-1`, `12345e-2`,
}, goValues...)

// TestCheckIsProtojson holds Check against protojson: what that takes, Check takes, and nearly all that it refuses.
func TestCheckIsProtojson(t *testing.T) {
	t.Parallel()
	md := message(t, thingFile, "Thing")
	s, strict := schema.OfMessage(md), jsoncodec.Strict()
	names := append(s.Fields(), "user_name", "USERNAME", "unknown", "name", "1")
	r := rand.New(rand.NewPCG(3, 4))
	taken, refused, missed := 0, 0, 0
	for range 10_000 {
		body := randomObject(r, names, protoValues, 3)
		err := strict.Unmarshal([]byte(body), dynamicpb.NewMessage(md))
		problems := s.Check([]byte(body))
		switch {
		case err == nil && len(problems) > 0:
			t.Fatalf("%s: the decoder takes it; check: %v", body, problems)
		case err == nil:
			taken++
		case len(problems) == 0:
			missed++
			if missed <= 8 {
				t.Logf("%s: missed: %v", body, err)
			}
		default:
			refused++
		}
	}
	if taken < 700 || missed > refused/50 {
		t.Errorf("taken %d, refused %d, missed %d", taken, refused, missed)
	}
}

func FuzzCheckMessage(f *testing.F) {
	md := message(f, thingFile, "Thing")
	for _, v := range protoValues {
		f.Add([]byte(`{"i32":` + v + `,"parts":[` + v + `],"when":` + v + `}`))
	}
	s, strict := schema.OfMessage(md), jsoncodec.Strict()
	f.Fuzz(func(t *testing.T, body []byte) {
		err := strict.Unmarshal(body, proto.Message(dynamicpb.NewMessage(md)))
		if problems := s.Check(body); err == nil && len(problems) > 0 {
			t.Errorf("the decoder takes it, the check does not: %v", problems)
		}
	})
}

// oldMessage is a protobuf message as generators made them before 2020. It has no file, and so no comments.
type oldMessage struct {
	Name string `protobuf:"bytes,1,opt,name=name,proto3" json:"name,omitempty"`
}

func (m *oldMessage) Reset()         { *m = oldMessage{} }
func (m *oldMessage) String() string { return m.Name }
func (*oldMessage) ProtoMessage()    {}

func TestOldMessage(t *testing.T) {
	t.Parallel()
	s := schema.OfMessage(protoimpl.X.ProtoMessageV2Of(new(oldMessage)).ProtoReflect().Descriptor())
	if s.Description != "" || s.At("name").TypeName() != "string" {
		t.Errorf("got %s", text(t, s))
	}
}
