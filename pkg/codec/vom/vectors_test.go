package vom_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/codec/vom"
)

// vector is a body and what it holds. Numbers are JSON numbers, floats also "NaN" and the like; byte lists are base64; lists and
// sets arrays; maps arrays of pairs; structs objects; a union is an object with one entry; an any has a type and a value.
type vector struct {
	Name    string
	GoType  string `json:"go_type"`
	VDLType string `json:"vdl_type"`
	Value   any
	Hex     string
	AltHex  []string `json:"alt_hex"`
	Note    string
	Error   string
}

func (v *vector) data(t testing.TB) []byte {
	t.Helper()
	data, err := hex.DecodeString(v.Hex)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// load reads a file of testdata. The files come from the reference implementation.
func load(t testing.TB, name string) []vector {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	dec := json.NewDecoder(f)
	dec.UseNumber()
	var vectors []vector
	if err := dec.Decode(&vectors); err != nil {
		t.Fatal(err)
	}
	if len(vectors) == 0 {
		t.Fatalf("%s is empty", name)
	}
	return vectors
}

// TestVectors writes and reads what the reference wrote, with the Go types that it was written from.
func TestVectors(t *testing.T) {
	t.Parallel()
	c := vom.New()
	for _, v := range load(t, "vectors.json") {
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			goes, ok := goTypes[v.GoType]
			if !ok {
				t.Fatalf("no Go type for %q", v.GoType)
			}
			want, in := reflect.New(goes), reflect.New(goes)
			filler{t, true}.fill(want.Elem(), v.Value)
			filler{t, false}.fill(in.Elem(), v.Value)
			got := reflect.New(goes)
			if err := c.Unmarshal(v.data(t), got.Interface()); err != nil {
				t.Fatal(err)
			}
			switch v.Name { // what was not sent is Go's zero value
			case "typeobject-zero-field":
				want.Elem().FieldByName("T").SetZero()
			case "struct-enum-union-zero":
				want.Elem().FieldByName("S").SetZero()
			case "struct-zero-method":
				in.Elem().Set(reflect.ValueOf(HasZero{Zero5{5}}))
			}
			if !same(got.Elem(), want.Elem()) {
				t.Errorf("read %#v, want %#v", got.Elem(), want.Elem())
			}
			if strings.Contains(v.VDLType, "typeobject") {
				return // these are read only
			}
			out, err := c.Append(nil, in.Elem().Interface())
			if err != nil {
				t.Fatal(err)
			}
			if h := hex.EncodeToString(out); h != v.Hex && !slices.Contains(v.AltHex, h) {
				t.Errorf("wrote\n%s, want\n%s", h, v.Hex)
			}
		})
	}
}

// same takes NaN for NaN.
func same(a, b reflect.Value) bool {
	return reflect.DeepEqual(a.Interface(), b.Interface()) || fmt.Sprintf("%#v", a) == fmt.Sprintf("%#v", b) && fmt.Sprint(a) == "NaN"
}

// filler makes Go values of what the vectors say: as they were written, or as they are read, which differs for structs in an any.
type filler struct {
	t    testing.TB
	read bool
}

func (f filler) fill(v reflect.Value, from any) {
	t := f.t
	t.Helper()
	object, _ := from.(map[string]any)
	switch v.Type() {
	case reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(time.Unix(integer(t, object["Seconds"])-62135596800, integer(t, object["Nanos"])).UTC()))
		return
	case reflect.TypeFor[time.Duration]():
		v.SetInt(integer(t, object["Seconds"])*1e9 + integer(t, object["Nanos"]))
		return
	case reflect.TypeFor[error]():
		if from != nil {
			e := new(vom.WireError)
			f.fill(reflect.ValueOf(&e.ID).Elem(), object["Id"])
			f.fill(reflect.ValueOf(&e.Msg).Elem(), object["Msg"])
			f.fill(reflect.ValueOf(&e.Params).Elem(), object["ParamList"])
			e.Retry = vom.RetryCode(slices.Index([]string{"NoRetry", "RetryConnection", "RetryRefetch", "RetryBackoff"}, object["RetryCode"].(string)))
			v.Set(reflect.ValueOf(e))
		}
		return
	case reflect.TypeFor[Color]():
		v.SetInt(int64(slices.Index([]string{"Red", "Green", "Blue"}, from.(string))))
		return
	case reflect.TypeFor[Shape]():
		for name, value := range object {
			c := reflect.New(reflect.TypeOf(map[string]Shape{"Circle": ShapeCircle{}, "Box": ShapeBox{}, "Label": ShapeLabel{}}[name])).Elem()
			f.fill(c.Field(0), value)
			v.Set(c)
		}
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(from.(bool))
	case reflect.String:
		v.SetString(from.(string))
	case reflect.Float32, reflect.Float64:
		x, err := strconv.ParseFloat(fmt.Sprint(from), 64)
		if err != nil {
			t.Fatal(err)
		}
		v.SetFloat(x)
	case reflect.Complex64, reflect.Complex128:
		var parts [2]float64
		f.fill(reflect.ValueOf(&parts[0]).Elem(), object["Real"])
		f.fill(reflect.ValueOf(&parts[1]).Elem(), object["Imag"])
		v.SetComplex(complex(parts[0], parts[1]))
	case reflect.Pointer:
		if from != nil && !slices.Contains([]string{"0", ""}, fmt.Sprint(from)) {
			v.Set(reflect.New(v.Type().Elem()))
			f.fill(v.Elem(), from)
		}
	case reflect.Interface:
		if from == nil {
			return
		}
		goes := goTypes[strings.TrimPrefix(strings.Split(object["type"].(string), " ")[0], "example.com/vec.")]
		if goes == nil {
			t.Fatalf("no Go type for %v", object["type"])
		}
		if goes.Kind() == reflect.Struct && f.read {
			goes = reflect.TypeFor[map[string]any]()
		}
		e := reflect.New(goes).Elem()
		f.fill(e, object["value"])
		v.Set(e)
	case reflect.Struct:
		for name, value := range object {
			f.fill(v.FieldByName(name), value)
		}
	case reflect.Map:
		f.fillMap(v, from)
	case reflect.Slice, reflect.Array:
		f.fillList(v, from)
	default:
		n := fmt.Sprint(from)
		if i, err := strconv.ParseInt(n, 10, 64); err == nil && v.CanInt() {
			v.SetInt(i)
		} else if u, err := strconv.ParseUint(n, 10, 64); err == nil {
			v.SetUint(u)
		} else {
			t.Fatalf("%s for %s", n, v.Type())
		}
	}
}

func integer(t testing.TB, from any) int64 {
	t.Helper()
	n, err := from.(json.Number).Int64()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (f filler) fillMap(v reflect.Value, from any) {
	if fields, ok := from.(map[string]any); ok { // a struct that is read into any
		v.Set(reflect.ValueOf(map[string]any{}))
		for name, value := range fields {
			v.SetMapIndex(reflect.ValueOf(name), reflect.ValueOf(plainValue(value)))
		}
		return
	}
	entries := from.([]any)
	if len(entries) > 0 {
		v.Set(reflect.MakeMap(v.Type()))
	}
	for _, e := range entries {
		key, elem := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		if pair, ok := e.([]any); ok && v.Type().Elem() != reflect.TypeFor[struct{}]() {
			f.fill(key, pair[0])
			f.fill(elem, pair[1])
		} else {
			f.fill(key, e)
		}
		v.SetMapIndex(key, elem)
	}
}

// plainValue is a field of the structs that the vectors put into any: an int32 or another any.
func plainValue(from any) any {
	switch from := from.(type) {
	case json.Number:
		n, _ := from.Int64()
		return int32(n)
	case map[string]any:
		if inner, ok := from["value"].(map[string]any); ok {
			return map[string]any{"V": plainValue(inner["V"])}
		}
		return from["value"]
	}
	return from
}

func (f filler) fillList(v reflect.Value, from any) {
	t := f.t
	if text, ok := from.(string); ok {
		raw, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if v.Kind() == reflect.Slice && len(raw) > 0 {
			v.Set(reflect.MakeSlice(v.Type(), len(raw), len(raw)))
		}
		for i, b := range raw {
			v.Index(i).SetUint(uint64(b))
		}
		return
	}
	list := from.([]any)
	if v.Kind() == reflect.Slice && len(list) > 0 {
		v.Set(reflect.MakeSlice(v.Type(), len(list), len(list)))
	}
	for i, e := range list {
		f.fill(v.Index(i), e)
	}
}

// TestVectorsIntoAny reads the same into any, writes that, and reads it again.
func TestVectorsIntoAny(t *testing.T) {
	t.Parallel()
	c := vom.New()
	refused := []string{"byte-300", "message-length-max"} // which the reference takes for something else
	for _, v := range append(load(t, "vectors.json"), load(t, "lenient.json")...) {
		var got any
		err := c.Unmarshal(v.data(t), &got)
		if slices.Contains(refused, v.Name) {
			if err == nil {
				t.Errorf("%s: taken", v.Name)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", v.Name, err)
			continue
		}
		if fault := differs(got, v.Value); fault != "" {
			t.Errorf("%s: read %#v: %s", v.Name, got, fault)
		}
		again, err := c.Append(nil, got)
		if err != nil {
			t.Errorf("%s: %v", v.Name, err)
			continue
		}
		var twice any
		if err := c.Unmarshal(again, &twice); err != nil || !reflect.DeepEqual(twice, got) && fmt.Sprint(got) != "NaN" {
			t.Errorf("%s: %#v became %#v, %v", v.Name, got, twice, err)
		}
	}
}

// differs says what is wrong with a value that was read into any.
func differs(got, want any) string {
	if object, ok := want.(map[string]any); ok && len(object) == 2 && object["type"] != nil {
		return differs(got, object["value"])
	}
	switch x := got.(type) {
	case time.Time:
		got = map[string]any{"Seconds": x.Unix() + 62135596800, "Nanos": x.Nanosecond()}
	case time.Duration:
		got = map[string]any{"Seconds": int64(x / 1e9), "Nanos": int64(x % 1e9)}
	case complex64:
		got = map[string]any{"Real": real(x), "Imag": imag(x)}
	case complex128:
		got = map[string]any{"Real": real(x), "Imag": imag(x)}
	case *vom.WireError:
		got = map[string]any{"Id": x.ID, "RetryCode": x.Retry.String(), "Msg": x.Msg, "ParamList": x.Params}
	case []byte:
		got = base64.StdEncoding.EncodeToString(x)
	case float32:
		got = float64(x)
	}
	rv := reflect.ValueOf(got)
	switch want := want.(type) {
	case map[string]any:
		return differsObject(got, want)
	case []any:
		if rv.Kind() == reflect.Map {
			return differsMap(rv, want)
		}
		if !rv.IsValid() || rv.Kind() != reflect.Slice || rv.Len() != len(want) {
			return fmt.Sprintf("%#v, want %d elements", got, len(want))
		}
		for i := range want {
			if fault := differs(rv.Index(i).Interface(), want[i]); fault != "" {
				return fault
			}
		}
		return ""
	}
	text := fmt.Sprint(got)
	if f, ok := got.(float64); ok {
		if n, ok := want.(json.Number); ok {
			if wanted, err := n.Float64(); err == nil && wanted == f && !math.Signbit(f) == !math.Signbit(wanted) {
				return ""
			}
		}
	}
	if wanted := fmt.Sprint(want); text != wanted && strings.TrimPrefix(wanted, "+") != strings.TrimPrefix(text, "+") {
		return fmt.Sprintf("%s, want %s", text, wanted)
	}
	return ""
}

func differsObject(got any, want map[string]any) string {
	m, ok := got.(map[string]any)
	if !ok || len(m) != len(want) {
		return fmt.Sprintf("%#v, want %v", got, want)
	}
	for name, value := range want {
		if fault := differs(m[name], value); fault != "" {
			return name + ": " + fault
		}
	}
	return ""
}

func differsMap(got reflect.Value, want []any) string {
	if got.Len() != len(want) {
		return fmt.Sprintf("%d entries, want %d", got.Len(), len(want))
	}
	for _, entry := range want {
		found := false
		for iter := got.MapRange(); iter.Next(); {
			if pair, ok := entry.([]any); ok {
				found = found || differs(iter.Key().Interface(), pair[0]) == "" && differs(iter.Value().Interface(), pair[1]) == ""
			} else {
				found = found || differs(iter.Key().Interface(), entry) == ""
			}
		}
		if !found {
			return fmt.Sprintf("no entry %v", entry)
		}
	}
	return ""
}

// TestTypeTexts sends each vector's type as a value, and reads its text.
func TestTypeTexts(t *testing.T) {
	t.Parallel()
	for _, v := range load(t, "vectors.json") {
		if v.VDLType == "typeobject" {
			continue
		}
		data := v.data(t)
		messages, id := definitions(data)
		body := append(slices.Clone(data[:messages]), 0x1c, 1)
		body = append(append(body, id...), 0)
		var got any
		if err := vom.New().Unmarshal(body, &got); err != nil || got != v.VDLType {
			t.Errorf("%s: got %v, %v, want %s", v.Name, got, err, v.VDLType)
		}
	}
}

// definitions gives where the value's message begins, and its type's id as it stands in a table.
func definitions(data []byte) (end int, id []byte) {
	number := func(at int) (n uint64, size int) {
		if data[at] < 0x80 {
			return uint64(data[at]), 1
		}
		for _, b := range data[at+1 : at+1+256-int(data[at])] {
			n = n<<8 | uint64(b)
		}
		return n, 257 - int(data[at])
	}
	for end = 1; ; {
		if data[end] == 0xe2 {
			end++
		}
		n, size := number(end)
		if n&1 == 0 {
			return end, []byte{byte(n >> 1)} // all are below 128
		}
		length, more := number(end + size)
		end += size + more + int(length)
	}
}

// TestInvalid reads what the reference refuses, or should.
func TestInvalid(t *testing.T) {
	t.Parallel()
	for _, v := range load(t, "invalid.json") {
		if v.Name == "empty" {
			continue // which leaves the variable as it is, with every codec
		}
		var got any
		err := vom.New().Unmarshal(v.data(t), &got)
		var e *vom.Error
		if !errors.As(err, &e) || !strings.HasPrefix(err.Error(), fmt.Sprintf("codec/vom: at offset %d: ", e.Offset)) || e.Offset > len(v.Hex)/2 {
			t.Errorf("%s (%s): got %v, %v", v.Name, v.Error, got, err)
		}
		t.Logf("%s: %v", v.Name, err)
	}
}
