package program_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/cb02dfca/micro/internal/program"
	"github.com/cb02dfca/micro/pkg/status"
)

func FuzzParseError(f *testing.F) {
	for _, s := range []string{``, `{}`, `{"error":{"code":404,"detail":"x"}}`, `{"error":{"code":-1}}`, `{"error":null}`, ` {"error":{"detail":"é"}} `,
		`{"error":{"code":404,"detail":"` + strings.Repeat("é", 4000) + `"}}`, `[{"error":1}]`, `{"error":{"code":1e99}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, out []byte) {
		err := program.ParseError(out)
		if err == nil {
			return
		}
		var e *status.Error
		if !errors.As(err, &e) || e.Code < 400 || e.Code > 599 || e.Refused || len(e.Detail) > 4<<10 {
			t.Errorf("got %#v", err)
		}
	})
}

func FuzzParseSidecar(f *testing.F) {
	for _, s := range []string{``, `null`, `{}`, `{"type":"object"}`, `{"request":{"type":"object"}}`, `{"request":{},"response":{}}`, `{"request":null}`,
		`{"$schema":"x"}`, `{"$schema":"x","request":{}}`, `{"request":1}`, `[]`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		request, response, err := program.ParseSidecar(data)
		if err != nil && (request != nil || response != nil) {
			t.Errorf("an error and a schema: %v, %s, %s", err, request, response)
		}
		if err == nil && request == nil && response == nil {
			t.Error("neither an error nor a schema")
		}
	})
}

func FuzzLines(f *testing.F) {
	f.Add([]byte("a\nb"), uint8(1))
	f.Add([]byte("\n\n"), uint8(7))
	f.Add([]byte(strings.Repeat("x", program.MaxLine+10)+"\ny\n"), uint8(255))
	f.Fuzz(func(t *testing.T, data []byte, size uint8) {
		want := strings.Split(string(data), "\n")
		if want[len(want)-1] == "" {
			want = want[:len(want)-1]
		}
		got := program.SplitLines(data, int(size)*100+1)
		if len(got) != len(want) {
			t.Fatalf("got %d lines, want %d", len(got), len(want))
		}
		for i := range got {
			if got[i] != want[i][:min(len(want[i]), program.MaxLine)] {
				t.Errorf("line %d is %q, want %q", i, got[i], want[i])
			}
		}
	})
}
