package schema_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/cb02dfca/micro/pkg/schema"
)

func parse(t testing.TB, doc string) *schema.Schema {
	t.Helper()
	s, err := schema.Parse([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestParseKeepsTheUnknown(t *testing.T) {
	t.Parallel()
	if got := text(t, parse(t, `true`)); got != `{}` { // which means the same
		t.Errorf("true became %s", got)
	}
	for _, doc := range []string{
		`false`,
		`{}`,
		`{"type":"string","pattern":"^a+$","x-any":{"b":[1,2.50]}}`,
		`{"properties":{"b":{},"a":false},"anyOf":[{"type":"object"}]}`,
		`{"items":[{"type":"string"}]}`,
		`{"type":["object","null"],"minimum":1e2,"required":["a"]}`,
	} {
		s := parse(t, doc)
		if got := text(t, s); got != doc {
			t.Errorf("got %s, want %s", got, doc)
		}
	}
}

func TestParseErrors(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat(`{"items":`, 100) + `{}` + strings.Repeat(`}`, 100)
	for doc, want := range map[string]string{
		``:                                "unexpected end",
		`{`:                               "unexpected end",
		`[]`:                              "want an object, true or false, got []",
		`{"type":1}`:                      "schema: type: ",
		`{"properties":[]}`:               "schema: properties: want an object",
		`{"properties":{"a":{"$ref":1}}}`: "schema: properties: $ref: ",
		`{"required":"a"}`:                "schema: required: ",
		deep:                              "schema: more than 64 schemas inside each other",
	} {
		_, err := schema.Parse([]byte(doc))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: got %v, want %s", doc, err, want)
		}
	}
}

func TestSchemaInsideAnotherValue(t *testing.T) {
	t.Parallel()
	type endpoint struct {
		Request *schema.Schema `json:"request,omitempty"`
	}
	data, err := json.Marshal(endpoint{schema.Of(reflect.TypeFor[Everything]())})
	if err != nil {
		t.Fatal(err)
	}
	var back endpoint
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	if got := lines(back.Request.Check([]byte(`{"again":{"inner":{"count":"x"}}}`))); got != `again.inner.count: want uint8, got "x"` {
		t.Errorf("got %s", got)
	}
}

func TestForeign(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, doc, body, want string }{
		{"any", `true`, `{"a":[1]}`, ""},
		{"open object", `{"type":"object","properties":{"a":{"type":"integer"}}}`, `{"b":1,"a":1e2}`, ""},
		{"an integer", `{"type":"integer"}`, `1.5`, "want integer, got 1.5"},
		{"several types", `{"type":["integer","string"]}`, `{"a":1}`, "want integer or string, got an object"},
		{"required is the handler's", `{"type":"object","required":["a"]}`, `{}`, ""},
		{"a reference to nowhere", `{"properties":{"a":{"$ref":"#/$defs/none"},"b":{"$ref":"https://example.com/x"}}}`, `{"a":1,"b":[]}`, ""},
		{"references in a circle", `{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}}}`, `{"x":[1]}`, ""},
		{"an escaped name", `{"$ref":"#/$defs/a~1b","$defs":{"a/b":{"type":"string"}}}`, `1`, "want string, got 1"},
		{"what anyOf says plays no part", `{"anyOf":[{"type":"string"}]}`, `1`, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if got := lines(parse(t, tc.doc).Check([]byte(tc.body))); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestSchemaByHand(t *testing.T) {
	t.Parallel()
	s := &schema.Schema{
		Type:       []string{"object"},
		Properties: []schema.Property{{Name: "next", Schema: &schema.Schema{Ref: "#"}}, {Name: "leaf", Schema: &schema.Schema{Ref: "#/$defs/leaf"}}},
		Defs:       []schema.Property{{Name: "leaf", Schema: &schema.Schema{Type: []string{"array"}, Items: &schema.Schema{Ref: "#"}}}},
	}
	if got := lines(s.Check([]byte(`{"next":{"leaf":[{"leaf":1}]}}`))); got != "next.leaf[0].leaf: want []object, got 1" {
		t.Errorf("got %s", got)
	}
	if got := string(s.Example()); got != `{"leaf":[]}` {
		t.Errorf("example %s", got)
	}
}

// TestExampleOfABomb unfolds a schema of 2^40 values.
func TestExampleOfABomb(t *testing.T) {
	t.Parallel()
	var defs []string
	for i := range 40 {
		defs = append(defs, fmt.Sprintf(`"d%d":{"type":"object","properties":{"a":{"$ref":"#/$defs/d%d"},"b":{"$ref":"#/$defs/d%d"}}}`, i, i+1, i+1))
	}
	s := parse(t, `{"$ref":"#/$defs/d0","$defs":{`+strings.Join(defs, ",")+`}}`)
	if got := s.Example(); len(got) > 1<<16 || !json.Valid(got) {
		t.Errorf("%d bytes", len(got))
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"$ref":"#/$defs/a","$defs":{"a":{"type":"object","properties":{"x":{"$ref":"#"},"y":false}}}}`), []byte(`{"x":{"x":1}}`))
	f.Add([]byte(`{"type":["array"],"items":{"$ref":"#"},"maxItems":2,"enum":[1,"a"],"minimum":3}`), []byte(`[[],[1]]`))
	f.Add([]byte(`{"type":"object","x-protobuf":"a","propertyNames":{"format":"int8"},"additionalProperties":{"format":"date-time"}}`), []byte(`{"1":"2","1":null}`))
	f.Fuzz(func(t *testing.T, doc, body []byte) {
		s, err := schema.Parse(doc)
		if err != nil {
			return
		}
		once, err := json.Marshal(s)
		if err != nil {
			t.Fatalf("read, but not written: %v", err)
		}
		again, err := schema.Parse(once)
		if err != nil {
			t.Fatalf("not read again: %v\n%s", err, once)
		}
		if twice, err := json.Marshal(again); err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%v\n%s\n%s", err, once, twice)
		}
		s.Check(body)
		s.Warnings(body)
		s.At("x", "0", "y")
		_ = s.TypeName()
		if example := s.Example(); !json.Valid(example) {
			t.Fatalf("example %s", example)
		}
	})
}
