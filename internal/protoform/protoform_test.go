package protoform_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/cb02dfca/micro/internal/protoform"
)

var update = flag.Bool("update", false, "write the golden files")

type item struct {
	Name  string `json:"name" doc:"what it is called"`
	Price *int64 `json:"price,omitempty"`
}

type page[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next-page"`
}

type node struct {
	Label    string  `json:"label"`
	Children []*node `json:"children"`
}

type audit struct {
	By string
}

type everything struct {
	audit
	Yes     bool                   `json:"yes"`
	Name    string                 `json:"userName"`
	NAME    string                 `json:"username"`
	Skipped chan int               `json:"skipped"`
	Photo   []byte                 `json:"photo"`
	Small   int8                   `json:"small"`
	Big     uint64                 `json:"big"`
	Ratio   float32                `json:"ratio"`
	Grid    [][]int                `json:"grid"`
	Tags    map[string]string      `json:"tags"`
	Lists   map[int][]item         `json:"lists"`
	Inner   struct{ A, B int }     `json:"inner"`
	Tree    *node                  `json:"tree"`
	Page    page[item]             `json:"page"`
	At      time.Time              `json:"at"`
	Until   *time.Time             `json:"until"`
	For     time.Duration          `json:"for"`
	Any     any                    `json:"any"`
	Wrapped *wrapperspb.Int32Value `json:"wrapped"`
	Flag    *bool                  `json:"flag"`
	Hidden  string                 `json:"-"`
}

func file(t *testing.T, methods ...protoform.Method) (*protoform.Forms, protoreflect.FileDescriptor) {
	t.Helper()
	forms := new(protoform.Forms)
	f := protoform.NewFile(forms, "shop.proto", "shop.v1", nil)
	f.Service("Say", methods)
	fdp, _ := f.Descriptor()
	fd, err := protodesc.NewFile(fdp, protoregistry.GlobalFiles)
	if err != nil {
		t.Fatalf("%v\n%s", err, prototext.Format(fdp))
	}
	return forms, fd
}

// TestDescriptor holds the rules of the package's doc by what they make of a struct that has everything. A change of the golden
// file that is no more than an addition is one that callers can live with.
func TestDescriptor(t *testing.T) {
	t.Parallel()
	_, fd := file(t,
		protoform.Method{Name: "Hello", Doc: "Says hello.\nTwice.", Request: reflect.TypeFor[everything](), Response: reflect.TypeFor[*page[*item]]()},
		protoform.Method{Name: "Watch", Request: reflect.TypeFor[[]string](), Response: reflect.TypeFor[map[string]int](), ServerStreams: true},
		protoform.Method{Name: "put-it", Response: reflect.TypeFor[struct{}](), ClientStreams: true},
	)
	got := prototext.MarshalOptions{Multiline: true}.Format(protodesc.ToFileDescriptorProto(fd))
	got = strings.ReplaceAll(got, ":  ", ": ") // package prototext puts one or two there
	golden := filepath.Join("testdata", "everything.txtpb")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func sample() *everything {
	price, flag, until := int64(0), false, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return &everything{
		audit: audit{"me"}, Yes: true, Name: "a", NAME: "b", Photo: []byte{0xff}, Small: -3, Big: 1 << 63, Ratio: 0.5, Grid: [][]int{{1, -2}, nil},
		Tags: map[string]string{"k": "v"}, Lists: map[int][]item{-4: {{"x", &price}}}, Tree: &node{"root", []*node{{Label: "leaf"}}},
		Page: page[item]{[]item{{Name: "i"}}, "n"}, At: until.Add(5), Until: &until, For: 1500 * time.Millisecond,
		Any: map[string]any{"list": []any{1.5, "x", nil}}, Wrapped: wrapperspb.Int32(7), Flag: &flag,
	}
}

// TestAsDescribed holds that what is written is what the descriptor says, and that what others write by it is read.
func TestAsDescribed(t *testing.T) {
	t.Parallel()
	forms, fd := file(t, protoform.Method{Name: "Hello", Request: reflect.TypeFor[everything](), Response: reflect.TypeFor[everything]()})
	form := forms.Of(reflect.TypeFor[everything]())
	data, err := form.Append(nil, sample())
	if err != nil {
		t.Fatal(err)
	}
	m := dynamicpb.NewMessage(fd.Services().Get(0).Methods().Get(0).Input())
	if err := proto.Unmarshal(data, m); err != nil {
		t.Fatal(err)
	}
	text, err := protojson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"By":"me","yes":true,"userName":"a","username":"b","photo":"/w==","small":-3,"big":"9223372036854775808","ratio":0.5,` +
		`"grid":[{"value":["1","-2"]},{}],"tags":{"k":"v"},"lists":{"-4":{"value":[{"name":"x","price":"0"}]}},` +
		`"tree":{"label":"root","children":[{"label":"leaf"}]},"page":{"items":[{"name":"i"}],"next-page":"n"},` +
		`"at":"2026-01-02T03:04:05.000000005Z","until":"2026-01-02T03:04:05Z","for":"1.500s","any":{"list":[1.5,"x",null]},"wrapped":7,"flag":false}`
	if got := compact(t, text); got != compact(t, []byte(want)) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if len(m.GetUnknown()) > 0 {
		t.Errorf("fields that are not described: %x", m.GetUnknown())
	}
	back, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	got := new(everything)
	if err := form.Unmarshal(back, got); err != nil {
		t.Fatal(err)
	}
	again, err := form.Append(nil, got)
	if err != nil {
		t.Fatal(err)
	}
	n := dynamicpb.NewMessage(m.Descriptor())
	if err := proto.Unmarshal(again, n); err != nil || !proto.Equal(m, n) {
		t.Errorf("got %v, want %v (%v)", n, m, err)
	}
}

func compact(t *testing.T, text []byte) string {
	t.Helper()
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestUnpacked holds that lists of numbers are read in both their forms, as proto3 asks.
func TestUnpacked(t *testing.T) {
	t.Parallel()
	forms := new(protoform.Forms)
	var got struct{ N []int }
	data := []byte{0x08, 1, 0x0a, 2, 2, 3, 0x08, 4}
	if err := forms.Of(reflect.TypeOf(got)).Unmarshal(data, &got); err != nil || !reflect.DeepEqual(got.N, []int{1, 2, 3, 4}) {
		t.Errorf("got %v, %v", got.N, err)
	}
}

type cyclic *cyclic

type hidden struct{ N int }

// TestOdd holds that types without an end, or without a place, are no panic.
func TestOdd(t *testing.T) {
	t.Parallel()
	forms := new(protoform.Forms)
	loop := &node{Label: "x"}
	loop.Children = []*node{loop}
	if _, err := forms.Of(reflect.TypeOf(loop)).Append(nil, loop); err == nil {
		t.Error("a ring of messages was written")
	}
	var c cyclic
	_ = forms.Of(reflect.TypeOf(c))
	var embeds struct{ *hidden }
	if err := forms.Of(reflect.TypeOf(embeds)).Unmarshal([]byte{0x08, 1}, &embeds); err == nil {
		t.Error("what is embedded and not exported was set")
	}
}
