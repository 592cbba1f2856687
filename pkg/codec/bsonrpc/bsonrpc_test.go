package bsonrpc_test

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/pkg/codec"
	bsoncodec "github.com/cb02dfca/micro/pkg/codec/bson"
	"github.com/cb02dfca/micro/pkg/codec/bsonrpc"
	"github.com/cb02dfca/micro/pkg/codec/codectest"
	"github.com/cb02dfca/micro/pkg/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type hello struct {
	Name  string `json:"name"`
	Count int    `json:"count,omitempty"`
}

func doc(t testing.TB, elements ...any) []byte {
	t.Helper()
	d := bson.D{}
	for i := 0; i < len(elements); i += 2 {
		d = append(d, bson.E{Key: elements[i].(string), Value: elements[i+1]})
	}
	data, err := bson.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func bodies(t testing.TB) [][]byte {
	return [][]byte{doc(t, "name", "John", "count", int32(3)), doc(t), doc(t, "", int64(7))}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	c := bsonrpc.New(bsoncodec.New())
	codectest.Run(t, codectest.Harness{
		Codec: c,
		Values: []codectest.Value{
			{Name: "struct", In: hello{"John", 3}, New: func() any { return new(hello) }, Want: &hello{"John", 3}},
			{Name: "number", In: 7, New: func() any { return new(int) }, Want: func() *int { n := 7; return &n }()},
		},
		Foreign: []any{make(chan int)},
		Garbage: []codectest.Data{{Name: "cut off", Data: []byte{9, 0, 0, 0, 0}, New: func() any { return new(hello) }}},
	})
	codectest.RunEnvelope(t, c, bodies(t)...)
}

func FuzzMessages(f *testing.F) {
	codectest.FuzzEnvelope(f, bsonrpc.New(bsoncodec.New()), bodies(f)...)
}

// binaryText is an element with a string as go-micro's plug-in writes it: a binary.
func binaryText(key, value string) []byte {
	out := append(append([]byte{0x05}, key...), 0)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(value)))
	return append(append(out, 0), value...)
}

func document(elements ...[]byte) []byte {
	body := slices.Concat(elements...)
	out := binary.LittleEndian.AppendUint32(nil, uint32(len(body)+5))
	return append(append(out, body...), 0)
}

// TestGoMicro: messages as go-micro's plug-in writes them, whose strings are binaries.
func TestGoMicro(t *testing.T) {
	t.Parallel()
	c := bsonrpc.New(bsoncodec.Strict())
	in := document(binaryText("name", "John"))
	calls := &codectest.Calls{Answer: func(_ string, body []byte) ([]byte, error) {
		var req hello
		if err := c.Values().Unmarshal(body, &req); err != nil || req.Name != "John" {
			t.Errorf("the body of the plug-in: %+v, %v", req, err)
		}
		return doc(t, "msg", "hi"), nil
	}}
	answer := c.Answer(nil, append(document(binaryText("ServiceMethod", "Say.Hello"), binaryText("Seq", "12")), in...), calls)
	if !slices.Equal(calls.Endpoints, []string{"Say.Hello"}) {
		t.Errorf("called %q", calls.Endpoints)
	}
	want := append(document(doc(t, "ServiceMethod", "Say.Hello")[4:][:len(doc(t, "ServiceMethod", "Say.Hello"))-5], binaryText("Seq", "12"),
		doc(t, "Error", "")[4:][:len(doc(t, "Error", ""))-5]), doc(t, "msg", "hi")...)
	if string(answer) != string(want) {
		t.Errorf("answered\n%q, want\n%q", answer, want)
	}
	if body, err := c.ReadResponse(answer, 12); err != nil || string(body) != string(doc(t, "msg", "hi")) {
		t.Errorf("read %q, %v", body, err)
	}
	failed := append(document(binaryText("ServiceMethod", ""), binaryText("Seq", "3"), binaryText("Error", `{"id":"x","code":409,"detail":"d","status":"Conflict"}`)), doc(t)...)
	if _, err := c.ReadResponse(failed, 3); !errors.Is(err, &status.Error{ID: "x", Code: 409, Detail: "d"}) {
		t.Errorf("read %v", err)
	}
	sent := append(doc(t, "ServiceMethod", "Say.Hello", "Seq", "0"), in...)
	if got, err := c.AppendRequest(nil, "Say.Hello", 0, in); err != nil || string(got) != string(sent) {
		t.Errorf("sends %q, %v", got, err)
	}
}

// TestSeq: a number comes back in the type that it came in.
func TestSeq(t *testing.T) {
	t.Parallel()
	c := bsonrpc.New(bsoncodec.New())
	for _, seq := range []any{int32(7), int64(7), float64(7), "7", bson.Binary{Data: []byte("7")}} {
		request := append(doc(t, "Seq", seq, "ServiceMethod", "a", "Next", doc(t)), doc(t)...)
		answer := c.Answer(nil, request, new(codectest.Calls))
		if want := append(doc(t, "ServiceMethod", "a", "Seq", seq, "Error", ""), doc(t)...); string(answer) != string(want) {
			t.Errorf("%T: answered %q, want %q", seq, answer, want)
		}
		if _, err := c.ReadResponse(answer, 7); err != nil {
			t.Errorf("%T: %v", seq, err)
		}
		if _, err := c.ReadResponse(answer, 8); err == nil {
			t.Errorf("%T: taken for the answer to another call", seq)
		}
	}
}

func TestWrongMessages(t *testing.T) {
	t.Parallel()
	c := bsonrpc.New(bsoncodec.New())
	for name, tt := range map[string]struct {
		in   []byte
		want string
	}{
		"nothing":            {nil, "cut off"},
		"half a length":      {[]byte{5, 0}, "cut off"},
		"a long header":      {[]byte{255, 255, 255, 127, 0}, "cut off"},
		"a short header":     {[]byte{4, 0, 0, 0, 0}, "says that it has 4 bytes"},
		"half a body":        {append(doc(t, "Seq", "1"), 9, 0, 0, 0, 0), "cut off"},
		"more":               {slices.Concat(doc(t, "Seq", "1"), doc(t), []byte{0}), "1 bytes follow"},
		"a broken header":    {append([]byte{9, 0, 0, 0, 2, 'S', 0, 9, 0}, doc(t)...), "no BSON"},
		"no Seq":             {append(doc(t, "ServiceMethod", "a"), doc(t)...), "no Seq"},
		"Seq null":           {append(doc(t, "ServiceMethod", "a", "Seq", nil), doc(t)...), "Seq: want a string or a number"},
		"Seq of a list":      {append(doc(t, "Seq", bson.A{1}), doc(t)...), "Seq: want a string"},
		"Seq twice":          {append(doc(t, "Seq", "1", "Seq", "2"), doc(t)...), "Seq twice"},
		"endpoint, a number": {append(doc(t, "ServiceMethod", int32(1), "Seq", "2"), doc(t)...), "ServiceMethod: want a string"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			calls := new(codectest.Calls)
			answer := c.Answer(nil, tt.in, calls)
			_, err := c.ReadResponse(answer, 5) // whatever was asked
			e, ok := errors.AsType[*status.Error](err)
			if !ok || e.Code != status.InvalidArgument || !strings.Contains(e.Detail, tt.want) || len(calls.Endpoints) > 0 {
				t.Errorf("answered %q: %v, called %q", answer, err, calls.Endpoints)
			}
			if _, err := c.ReadResponse(tt.in, 0); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("read as an answer: %v", err)
			}
		})
	}
	if got, err := c.AppendRequest([]byte("x"), "a", 1, []byte("no document")); !errors.Is(err, codec.ErrUnsupported) || string(got) != "x" {
		t.Errorf("a body that is no document: %q, %v", got, err)
	}
	broken := &codectest.Calls{Answer: func(string, []byte) ([]byte, error) { return append(doc(t), doc(t)...), nil }}
	answer := c.Answer(nil, append(doc(t, "ServiceMethod", "a", "Seq", "1"), doc(t)...), broken)
	if _, err := c.ReadResponse(answer, 1); status.CodeOf(err) != status.Internal {
		t.Errorf("an answer of two documents: %v", err)
	}
}
