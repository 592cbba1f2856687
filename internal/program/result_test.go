//go:build unix

package program_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/cb02dfca/micro/internal/program"
	"github.com/cb02dfca/micro/pkg/status"
)

// TestResult is the table of what the ends of a process mean.
func TestResult(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		script []string
		body   string
		want   string // the answer
		kind   string
		code   status.Code
		detail string
	}{
		"json":                          {script: []string{`echo '{"msg": "hi"}'`}, want: `{"msg": "hi"}`, kind: "application/json"},
		"json scalar":                   {script: []string{`echo 42`}, want: `42`, kind: "application/json"},
		"text":                          {script: []string{`echo hello there`}, want: "hello there\n", kind: "text/plain"},
		"garbage":                       {script: []string{`printf '\377\376{"a'`}, want: "\xff\xfe{\"a", kind: "text/plain"},
		"two values are text":           {script: []string{`echo 1; echo 2`}, want: "1\n2\n", kind: "text/plain"},
		"empty":                         {script: []string{`:`}, want: `{}`, kind: "application/json"},
		"blank":                         {script: []string{`echo`}, want: `{}`, kind: "application/json"},
		"body":                          {script: []string{`cat`}, body: `{"name":"x"}`, want: `{"name":"x"}`, kind: "application/json"},
		"body is not read":              {script: []string{`echo 1`}, body: strings.Repeat("x", 1<<20), want: `1`, kind: "application/json"},
		"stderr is no answer":           {script: []string{`echo log >&2; echo 1`}, want: `1`, kind: "application/json"},
		"error object":                  {script: []string{`echo '{"error":{"code":409,"detail":"there already"}}'; exit 1`}, code: 409, detail: "there already"},
		"error object of another code":  {script: []string{`echo '{"error":{"code":200,"detail":"odd"}}'; exit 1`}, code: 500, detail: "odd"},
		"error object on fd 3":          {script: []string{`echo partial; echo '{"error":{"code":404,"detail":"no such cat"}}' >&3; exit 1`}, code: 404, detail: "no such cat"},
		"error object with exit 0":      {script: []string{`echo '{"error":{"code":409,"detail":"x"}}'`}, want: `{"error":{"code":409,"detail":"x"}}`, kind: "application/json"},
		"error object before exit code": {script: []string{`echo '{"error":{"code":418,"detail":"teapot"}}'; exit 64`}, code: 418, detail: "teapot"},
		"some other object":             {script: []string{`echo '{"error":"text"}'; exit 1`}, code: 500, detail: "exited with status 1"},
		"exit 64":                       {script: []string{`echo name is empty >&2; exit 64`}, code: 400, detail: "name is empty"},
		"exit 65":                       {script: []string{`exit 65`}, code: 400, detail: "exited with status 65"},
		"exit 66":                       {script: []string{`exit 66`}, code: 404, detail: "exited with status 66"},
		"exit 77":                       {script: []string{`exit 77`}, code: 403, detail: "exited with status 77"},
		"exit 69":                       {script: []string{`exit 69`}, code: 503, detail: "exited with status 69"},
		"exit 75":                       {script: []string{`exit 75`}, code: 503, detail: "exited with status 75"},
		"exit 3":                        {script: []string{`echo first >&2; echo last >&2; echo >&2; exit 3`}, code: 500, detail: "exited with status 3: last"},
		"exit 3 in silence":             {script: []string{`exit 3`}, code: 500, detail: "exited with status 3"},
		"exit 2 is no usage error":      {script: []string{`exit 2`}, code: 500, detail: "exited with status 2"},
		"last line without its end":     {script: []string{`printf 'a\nb' >&2; exit 1`}, code: 500, detail: "exited with status 1: b"},
		"last line steers a terminal":   {script: []string{`printf '\033]0;x\007 \302\233 \342\200\256\n' >&2; exit 1`}, code: 500, detail: `exited with status 1: \x1b]0;x\x07 \x9b \u202e`},
		"signal":                        {script: []string{`kill -SEGV $$`}, code: 500, detail: "killed by SIGSEGV"},
		"kill":                          {script: []string{`echo out of memory >&2; kill -KILL $$`}, code: 500, detail: "killed by SIGKILL: out of memory"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := open(t, program.Options{Path: script(t, test.script...)})
			got, err := p.Run(t.Context(), program.Request{Body: []byte(test.body)})
			if test.code != 0 {
				wantStatus(t, err, test.code, test.detail, false)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if string(got.Body) != test.want || got.ContentType != test.kind {
				t.Errorf("got %q of %s, want %q of %s", got.Body, got.ContentType, test.want, test.kind)
			}
		})
	}
}

func wantStatus(t *testing.T, err error, code status.Code, detail string, refused bool) {
	t.Helper()
	var e *status.Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want a *status.Error", err)
	}
	if e.Code != code || e.Detail != detail || e.Refused != refused || e.Remote {
		t.Errorf("got %d %q refused %v, want %d %q refused %v", e.Code, e.Detail, e.Refused, code, detail, refused)
	}
}

func TestLastLineIsCut(t *testing.T) {
	t.Parallel()
	p := open(t, program.Options{Path: script(t, `head -c 100000 /dev/zero | tr '\0' x >&2; exit 1`)})
	_, err := p.Run(t.Context(), program.Request{})
	wantStatus(t, err, 500, "exited with status 1: "+strings.Repeat("x", program.MaxDetail), false)
}

func TestHideStderr(t *testing.T) {
	t.Parallel()
	p := open(t, program.Options{Path: script(t, `echo password >&2; exit 9`), HideStderr: true})
	_, err := p.Run(t.Context(), program.Request{})
	wantStatus(t, err, 500, "exited with status 9", false)
}

func TestPanic(t *testing.T) {
	t.Parallel()
	p := open(t, self(t, "panic"))
	_, err := p.Run(t.Context(), program.Request{})
	var e *status.Error
	if !errors.As(err, &e) || e.Code != 500 || !strings.HasPrefix(e.Detail, "exited with status 2: ") {
		t.Errorf("got %v, want 500 of exit status 2", err)
	}
}

func TestLargeBodies(t *testing.T) {
	t.Parallel()
	body := []byte(`"` + strings.Repeat("x", 4<<20-2) + `"`)
	t.Run("4 MiB in and out", func(t *testing.T) {
		t.Parallel()
		p := open(t, self(t, "cat"))
		got, err := p.Run(t.Context(), program.Request{Body: body})
		if err != nil {
			t.Fatal(err)
		}
		if string(got.Body) != string(body) {
			t.Errorf("got %d bytes, want the %d that were sent", len(got.Body), len(body))
		}
	})
	t.Run("a byte over", func(t *testing.T) {
		t.Parallel()
		p := open(t, self(t, "cat"))
		_, err := p.Run(t.Context(), program.Request{Body: append([]byte(" "), body...)})
		wantStatus(t, err, 500, "answer over 4 MiB", false)
	})
	t.Run("without end", func(t *testing.T) {
		t.Parallel()
		p := open(t, program.Options{Path: script(t, `trap '' TERM PIPE`, `while :; do echo xxxxxxxxxxxxxxxx; done`), MaxBody: 1000})
		_, err := p.Run(t.Context(), program.Request{})
		wantStatus(t, err, 500, "answer over 1000 bytes", false)
	})
}
