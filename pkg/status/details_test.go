package status_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/cb02dfca/micro/pkg/status"
)

// TestDetails: messages come back as they were added, through the form on the wire.
func TestDetails(t *testing.T) {
	t.Parallel()
	bare := status.Wrap(io.ErrUnexpectedEOF, status.ResourceExhausted, "later")
	e := bare.With(durationpb.New(time.Second)).With(wrapperspb.String("é"))
	if len(bare.Details) != 0 || len(e.Details) != 2 || !errors.Is(e, io.ErrUnexpectedEOF) {
		t.Fatalf("%+v became %+v", bare, e)
	}
	if want := "429 Too Many Requests: later (with details: google.protobuf.Duration, google.protobuf.StringValue)"; e.Error() != want {
		t.Errorf("got %q, want %q", e.Error(), want)
	}
	text, _ := e.MarshalJSON()
	want := `{"id":"","code":429,"detail":"later","status":"Too Many Requests","details":[{"type":"google.protobuf.Duration","value":"CAE"},` +
		`{"type":"google.protobuf.StringValue","value":"CgLDqQ"}]}`
	if string(text) != want {
		t.Errorf("sent %s, want %s", text, want)
	}
	for _, err := range []error{e, fmt.Errorf("call: %w", status.Parse(string(text))), e.From("greeter"), e.Within(1 << 10)} {
		wait, ok := status.DetailOf[*durationpb.Duration](err)
		word, also := status.DetailOf[*wrapperspb.StringValue](err)
		if !ok || !also || wait.AsDuration() != time.Second || word.Value != "é" {
			t.Errorf("%v has %v, %v", err, wait, word)
		}
		if m, ok := status.DetailOf[*wrapperspb.Int64Value](err); ok {
			t.Errorf("%v has %v", err, m)
		}
	}
	if _, ok := status.DetailOf[*durationpb.Duration](io.EOF); ok {
		t.Error("another error has details")
	}
	if e := status.FromError(status.Parse(string(text))); len(e.Details) != 0 {
		t.Errorf("a peer's error went on with %v", e.Details)
	}
}

// TestStrangeDetails: what is no detail is left out, and harms nothing.
func TestStrangeDetails(t *testing.T) {
	t.Parallel()
	e := status.New(status.Internal, "x").With(wrapperspb.String("\xff"), wrapperspb.Bool(true))
	if len(e.Details) != 1 || e.Details[0].Name() != "google.protobuf.BoolValue" || errors.Unwrap(e) == nil {
		t.Errorf("a message that does not encode: %+v", e)
	}
	for text, want := range map[string]int{
		`null`: 0, `7`: 0, `{}`: 0, `[7,null,{},{"type":"a.B"},{"type":"a.B","value":"!"},{"type":7},{"type":"a.B","value":"AA==","debug":{}}]`: 2,
	} {
		e := status.Parse(`{"id":"a","code":404,"detail":"x","details":` + text + `}`)
		if e.Code != 404 || e.Detail != "x" || len(e.Details) != want {
			t.Errorf("%s: %+v", text, e)
		}
	}
	odd := status.Pack("types.example/a.B", []byte{0xff})
	if odd.URL() != "types.example/a.B" || odd.Name() != "a.B" {
		t.Errorf("another host's: %+v", odd)
	}
	if _, err := odd.Message(); !errors.Is(err, protoregistry.NotFound) {
		t.Errorf("of an unknown type: %v", err)
	}
	broken := status.Pack("type.googleapis.com/google.protobuf.Duration", []byte{0xff})
	if m, err := broken.Message(); err == nil || broken.Type != "google.protobuf.Duration" {
		t.Errorf("a broken one: %v", m)
	}
	if _, ok := status.DetailOf[*durationpb.Duration](&status.Error{Code: 500, Details: []status.Packed{broken}}); ok {
		t.Error("a broken one was found")
	}
	whole := status.Pack("google.protobuf.Duration", []byte{8, 1})
	if m, err := whole.Message(); err != nil || !proto.Equal(m, durationpb.New(time.Second)) || whole.URL() != "type.googleapis.com/google.protobuf.Duration" {
		t.Errorf("got %v, %v", m, err)
	}
}

// TestWithin: an error that is too long loses details, and then text, and nothing else.
func TestWithin(t *testing.T) {
	t.Parallel()
	long := wrapperspb.String(strings.Repeat("x", 300))
	e := status.Refuse(status.NotFound, "gone").With(wrapperspb.Bool(true), long, long)
	got := e.Within(300)
	if len(got.Details) != 1 || got.Detail != "gone (2 of 3 details are left out, which are too large)" || !got.Refused || len(e.Details) != 3 {
		t.Errorf("got %+v", got)
	}
	e = status.New(status.NotFound, "%s", strings.Repeat("\n", 1000))
	e.ID = "greeter"
	got = e.Within(300)
	if text := got.AppendJSON(nil); len(text) > 300 || len(got.Detail) < 50 || got.ID != "greeter" || got.Code != 404 {
		t.Errorf("got %s", text)
	}
	if got := e.Within(1 << 20); got != e {
		t.Errorf("one that fits became %+v", got)
	}
}
