package status_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/cb02dfca/micro/pkg/status"
)

func TestFromError(t *testing.T) {
	t.Parallel()
	own := status.New(status.NotFound, "no such order")
	tests := []struct {
		name   string
		err    error
		code   status.Code
		detail string
	}{
		{"own", own, status.NotFound, "no such order"},
		{"own, wrapped", fmt.Errorf("handler: %w", own), status.NotFound, "no such order"},
		{"plain", errors.New("password is hunter2"), status.Internal, "the handler failed"},
		{"a peer's", status.Parse(`{"id":"x","code":403,"detail":"theirs"}`), status.Internal, "the handler failed"},
		{"deadline", fmt.Errorf("query: %w", context.DeadlineExceeded), status.DeadlineExceeded, "query: context deadline exceeded"},
		{"cancel", context.Canceled, status.Canceled, "context canceled"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := status.FromError(tt.err)
			if e.Code != tt.code || e.Detail != tt.detail {
				t.Errorf("got %d %q, want %d %q", e.Code, e.Detail, tt.code, tt.detail)
			}
		})
	}
	if e := status.FromError(nil); e != nil {
		t.Errorf("no error became %v", e)
	}
}

func TestCauseStays(t *testing.T) {
	t.Parallel()
	e := status.Wrap(io.ErrUnexpectedEOF, status.Unavailable, "the store is away")
	if !errors.Is(e, io.ErrUnexpectedEOF) {
		t.Error("the cause is not found")
	}
	text, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"id":"","code":503,"detail":"the store is away","status":"Service Unavailable"}`
	if string(text) != want {
		t.Errorf("sent %s, want %s", text, want)
	}
}

func TestIs(t *testing.T) {
	t.Parallel()
	err := fmt.Errorf("call: %w", &status.Error{ID: "greeter", Code: status.NotFound, Detail: "x"})
	for _, tt := range []struct {
		target *status.Error
		want   bool
	}{
		{&status.Error{Code: status.NotFound}, true},
		{&status.Error{ID: "greeter"}, true},
		{&status.Error{Code: status.Internal}, false},
		{&status.Error{Code: status.NotFound, ID: "orders"}, false},
	} {
		if got := errors.Is(err, tt.target); got != tt.want {
			t.Errorf("Is(%+v) is %v", tt.target, got)
		}
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text    string
		code    status.Code
		detail  string
		refused bool
	}{
		{`{"id":"greeter","code":400,"detail":"bad name: xx","status":"Bad Request"}`, 400, "bad name: xx", false},
		{`{"id":"greeter","code":503,"detail":"full","status":"","refused":true}`, 503, "full", true},
		{`{"id":"greeter","code":503,"detail":"full","status":"Service Unavailable","refused":true}`, 503, "full", true},
		{`{"id":"greeter","code":503,"detail":"full","status":"Service Unavailable","refused":false}`, 503, "full", false},
		{`{"id":"greeter","code":400,"detail":"a \"quoted\" \u00e9","status":"Bad Request"}`, 400, `a "quoted" é`, false},
		{`{"id":"greeter","code":400,"detail":"twice","status":"Bad Request"}}`, 500, `{"id":"greeter","code":400,"detail":"twice","status":"Bad Request"}}`, false},
		{`{"id":"a","detail":"no code","code":403,"status":"x"}`, 403, "no code", false},
		{`{"id":"a","code":4e2,"detail":"x","status":"y"}`, 500, `{"id":"a","code":4e2,"detail":"x","status":"y"}`, false},
		{`{"id":"greeter","code":7,"detail":"odd"}`, 500, "odd", false},
		{`{"other":"object"}`, 500, `{"other":"object"}`, false},
		{`{broken`, 500, `{broken`, false},
		{`plain text`, 500, `plain text`, false},
	} {
		e := status.Parse(tt.text)
		if e.Code != tt.code || e.Detail != tt.detail || e.Refused != tt.refused || !e.Remote {
			t.Errorf("%s: %+v", tt.text, e)
		}
		if status.IsRefused(fmt.Errorf("x: %w", e)) != tt.refused {
			t.Errorf("%s: IsRefused", tt.text)
		}
	}
	if e := status.Parse(""); e != nil {
		t.Errorf("no text became %v", e)
	}
}

// TestJSONIsTheStandards: what is written by hand is what encoding/json writes.
func TestJSONIsTheStandards(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "plain", `"quoted" \ and`, "two\nlines\t\x00\x7f", "<a&b>", "é \u2028 \xff"} {
		for _, e := range []*status.Error{{ID: text, Code: 404, Detail: "x"}, {ID: "greeter", Code: 599, Detail: text, Refused: true}} {
			want, err := json.Marshal(struct {
				ID      string `json:"id"`
				Code    int    `json:"code"`
				Detail  string `json:"detail"`
				Status  string `json:"status"`
				Refused bool   `json:"refused,omitempty"`
			}{e.ID, int(e.Code), e.Detail, e.Code.String(), e.Refused})
			if err != nil {
				t.Fatal(err)
			}
			got, err := e.MarshalJSON()
			if err != nil || string(got) != string(want) {
				t.Errorf("got %s, %v, want %s", got, err, want)
			}
			if got := e.AppendJSON([]byte("prefix ")); string(got) != "prefix "+string(want) {
				t.Errorf("appended: %s", got)
			}
		}
	}
}

func BenchmarkFailure(b *testing.B) {
	own := status.New(status.NotFound, "no such order")
	wrapped, sent := fmt.Errorf("handler: %w", own), `{"id":"orders","code":404,"detail":"no such order","status":"Not Found"}`
	dst := make([]byte, 0, 256)
	for _, bc := range []struct {
		name string
		run  func()
	}{
		{"New", func() { own = status.New(status.NotFound, "no such order") }},
		{"FromError", func() { status.FromError(own) }},
		{"FromError wrapped", func() { status.FromError(wrapped) }},
		{"FromError plain", func() { status.FromError(context.Canceled) }},
		{"MarshalJSON", func() { _, _ = own.MarshalJSON() }},
		{"AppendJSON", func() { dst = own.AppendJSON(dst[:0]) }},
		{"Parse", func() { status.Parse(sent) }},
	} {
		b.Run(bc.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				bc.run()
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`{"id":"greeter","code":400,"detail":"x","status":"Bad Request"}`)
	f.Add(`plain`)
	f.Add(`{"id":"a","code":503,"detail":"x","status":"y","refused":true}`)
	f.Fuzz(func(t *testing.T, text string) {
		e := status.Parse(text)
		if e == nil {
			return
		}
		sent, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if again := status.Parse(string(sent)); again.Code != e.Code || again.Refused != e.Refused {
			t.Errorf("%q became %+v, then %+v", text, e, again)
		}
		var object struct {
			ID, Detail string
			Code       status.Code
			Refused    bool
		}
		// Both are read whatever the case of the keys is, and the last of two of the same name counts.
		if json.Unmarshal([]byte(text), &object) == nil && object.Code >= 400 && object.Code <= 599 &&
			(object.ID != e.ID || object.Detail != e.Detail || object.Code != e.Code || object.Refused != e.Refused) {
			t.Errorf("%q is %+v, and was read as %+v", text, object, e)
		}
	})
}

func ExampleRefuse() {
	err := status.Refuse(status.ResourceExhausted, "the queue is full")
	fmt.Println(err, status.IsRefused(err))
	// Output: 429 Too Many Requests: the queue is full true
}
