package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	t.Parallel()
	const begun = `{"Action":"run","Package":"p","Test":"TestA"}` + "\n" + `{"Action":"output","Package":"p","Test":"TestA","Output":"said\n"}` + "\n"
	for name, c := range map[string]struct {
		in    string
		want  report
		out   []string
		never string
	}{
		"passed": {
			in:   begun + `{"Action":"pass","Package":"p","Test":"TestA"}` + "\n" + `{"Action":"pass","Package":"p","Elapsed":1.5}`,
			want: report{passed: 1}, out: []string{"ok      p 1.5s\n"}, never: "said",
		},
		"failed": {
			in:   begun + `{"Action":"fail","Package":"p","Test":"TestA"}` + "\n" + `{"Action":"fail","Package":"p"}`,
			want: report{failed: 2}, out: []string{"FAILED  p TestA\nsaid\n"}, never: "NO END",
		},
		"ran out of time": {
			in:   begun + `{"Action":"output","Package":"p","Output":"FAIL\n"}` + "\n" + `{"Action":"fail","Package":"p"}`,
			want: report{failed: 1}, out: []string{"NO END  p TestA\nsaid\n", "FAILED  p \nFAIL\n"},
		},
		"skipped": {
			in:   begun + `{"Action":"skip","Package":"p","Test":"TestA"}`,
			want: report{skipped: 1}, never: "said",
		},
		"skipped for the machine's sake": {
			in:   `{"Action":"output","Package":"p","Test":"TestA","Output":"SKIPPED: no namespaces\n"}` + "\n" + `{"Action":"skip","Package":"p","Test":"TestA"}`,
			want: report{skipped: 1, unrun: 1}, out: []string{"SKIPPED p TestA\nSKIPPED: no namespaces\n"},
		},
		"does not build": {
			in:   "# p\n" + `{"Action":"build-fail"}`,
			want: report{failed: 1}, out: []string{"# p\n"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			got := report{output: map[string][]string{}}
			if err := got.read(strings.NewReader(c.in), &out); err != nil {
				t.Fatal(err)
			}
			if got.passed != c.want.passed || got.failed != c.want.failed || got.skipped != c.want.skipped || got.unrun != c.want.unrun {
				t.Errorf("counted %+v, want %+v", got, c.want)
			}
			for _, part := range c.out {
				if !strings.Contains(out.String(), part) {
					t.Errorf("printed %q, want %q in it", out.String(), part)
				}
			}
			if c.never != "" && strings.Contains(out.String(), c.never) {
				t.Errorf("printed %q, want no %q in it", out.String(), c.never)
			}
		})
	}
}
