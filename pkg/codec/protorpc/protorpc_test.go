package protorpc_test

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/cb02dfca/micro/pkg/codec/codectest"
	"github.com/cb02dfca/micro/pkg/codec/proto"
	"github.com/cb02dfca/micro/pkg/codec/protorpc"
	"github.com/cb02dfca/micro/pkg/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var bodies = [][]byte{[]byte("\x0a\x04John\x10\x03"), {}, []byte(strings.Repeat("\x0a\x01x", 1000))}

func TestConformance(t *testing.T) {
	t.Parallel()
	c := protorpc.New(proto.New())
	codectest.Run(t, codectest.Harness{
		Codec:  c,
		Values: []codectest.Value{{Name: "message", In: wrapperspb.String("x"), New: func() any { return new(wrapperspb.StringValue) }, Want: wrapperspb.String("x")}},
		Equal: func(got, want any) bool {
			return got.(*wrapperspb.StringValue).GetValue() == want.(*wrapperspb.StringValue).GetValue()
		},
		Foreign: []any{"text", 7},
		Garbage: []codectest.Data{{Name: "cut off", Data: []byte("\x0a\x09x"), New: func() any { return new(wrapperspb.StringValue) }}},
	})
	codectest.RunEnvelope(t, c, bodies...)
}

func FuzzMessages(f *testing.F) { codectest.FuzzEnvelope(f, protorpc.New(proto.New()), bodies...) }

func bytesOf(t *testing.T, text string) []byte {
	t.Helper()
	data, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestGoMicro: requests and answers as go-micro's versions wrote them.
func TestGoMicro(t *testing.T) {
	t.Parallel()
	const (
		in  = "0a 04 4a6f686e 10 03"                                                 // name: "John", count: 3
		out = "0a 12 48656c6c6f204a6f686e2066726f6d207631 10 03"                     // msg: "Hello John from v1", seq: 3
		v5  = "0000000b 0a 09 5361792e48656c6c6f 00000008 " + in                     // a zero Seq is left out
		v1  = "00000014 0a 09 5361792e48656c6c6f 11 0000000000000000 00000008 " + in // and here is not
	)
	c := protorpc.New(proto.New())
	for version, request := range map[string]string{"v1": v1, "v2, v5": v5} {
		calls := &codectest.Calls{Answer: func(string, []byte) ([]byte, error) { return bytesOf(t, out), nil }}
		answer := c.Answer(nil, bytesOf(t, request), calls)
		if len(calls.Endpoints) != 1 || calls.Endpoints[0] != "Say.Hello" || calls.Bodies[0] != string(bytesOf(t, in)) {
			t.Errorf("%s: called %q with %q", version, calls.Endpoints, calls.Bodies)
		}
		if want := bytesOf(t, "00000000 00000016 "+out); string(answer) != string(want) {
			t.Errorf("%s: answered %x, want %x", version, answer, want)
		}
	}
	if got, err := c.AppendRequest(nil, "Say.Hello", 0, bytesOf(t, in)); err != nil || string(got) != string(bytesOf(t, v5)) {
		t.Errorf("sends %x, %v", got, err)
	}
	for version, answer := range map[string]string{
		"v1":     "0000000d 0a 00 11 0000000000000000 1a 00 00000016 " + out,
		"v2, v5": "00000000 00000016 " + out,
	} {
		if got, err := c.ReadResponse(bytesOf(t, answer), 0); err != nil || string(got) != string(bytesOf(t, out)) {
			t.Errorf("%s: read %x, %v", version, got, err)
		}
	}
}

func TestWrongMessages(t *testing.T) {
	t.Parallel()
	c := protorpc.New(proto.New())
	for name, tt := range map[string]struct{ in, want string }{
		"nothing":             {"", "cut off"},
		"half a length":       {"0000", "cut off"},
		"no body":             {"00000000", "cut off"},
		"a long header":       {"ffffffff 00", "cut off"},
		"a long body":         {"00000000 7fffffff 00", "cut off"},
		"more":                {"00000000 00000000 00", "1 bytes follow"},
		"a broken header":     {"00000002 0aff 00000000", "no protobuf message"},
		"a field of number 0": {"00000002 0000 00000000", "no protobuf message"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			calls := new(codectest.Calls)
			answer := c.Answer(nil, bytesOf(t, tt.in), calls)
			_, err := c.ReadResponse(answer, 5) // whatever was asked
			e, ok := errors.AsType[*status.Error](err)
			if !ok || e.Code != status.InvalidArgument || !strings.Contains(e.Detail, tt.want) || len(calls.Endpoints) > 0 {
				t.Errorf("answered %q: %v, called %q", answer, err, calls.Endpoints)
			}
			if _, err := c.ReadResponse(bytesOf(t, tt.in), 0); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("read as an answer: %v", err)
			}
		})
	}
}

// TestHeader: fields that are not known are passed over, a wrong type among them, and a request may leave its endpoint to the message
// around it.
func TestHeader(t *testing.T) {
	t.Parallel()
	c := protorpc.New(proto.New())
	calls := new(codectest.Calls)
	answer := c.Answer(nil, bytesOf(t, "0000000f 22 02 6162 10 05 11 0700000000000000 00000000"), calls)
	if len(calls.Endpoints) != 1 || calls.Endpoints[0] != "" {
		t.Fatalf("called %q, answered %x", calls.Endpoints, answer)
	}
	if body, err := c.ReadResponse(answer, 7); err != nil || len(body) != 0 {
		t.Errorf("%x, %v", body, err)
	}
}
