//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The figures are this program's only output, so what they say is tested from within.

func TestQuantile(t *testing.T) {
	t.Parallel()
	hundred := sample{}
	for i := range 100 {
		hundred = append(hundred, time.Duration(100-i))
	}
	for name, tt := range map[string]struct {
		s    sample
		q    float64
		want time.Duration
	}{
		"none":       {nil, 0.5, 0},
		"one":        {sample{7}, 0.95, 7},
		"median":     {hundred, 0.5, 50},
		"p95":        {hundred, 0.95, 95},
		"the least":  {hundred, 0, 1},
		"the most":   {hundred, 1, 100},
		"odd median": {sample{3, 1, 2}, 0.5, 2},
	} {
		if got := tt.s.quantile(tt.q); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
	if hundred[0] != 100 {
		t.Error("the sample was sorted in place")
	}
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	slow := sample{30 * time.Millisecond}
	withSlack := func(f figure, slack float64) figure { f.Slack = slack; return f }
	for name, tt := range map[string]struct {
		f       figure
		verdict string
		fails   bool
	}{
		"in budget":                {withSlack(slow.within("g", "w", 0.5, 30*time.Millisecond), 1), "met", false},
		"over it":                  {slow.within("g", "w", 0.5, 20*time.Millisecond), "**missed**", false},
		"over it within the slack": {withSlack(slow.within("g", "w", 0.5, 20*time.Millisecond), 2), "**missed**", false},
		"over the slack":           {withSlack(slow.within("g", "w", 0.5, 10*time.Millisecond), 2), "**missed**", true},
		"no budget":                {slow.within("g", "w", 0.5, 0), "", false},
		"nothing measured":         {withSlack(sample{}.within("g", "w", 0.5, time.Second), 2), "**missed**", true},
		"a size":                   {withSlack(sized("g", "w", 20e6, 20e6), 1), "met", false},
		"a size over":              {withSlack(sized("g", "w", 20e6+1, 20e6), 1), "**missed**", true},
		"all":                      {complete("g", "w", 200, 200), "met", false},
		"all but one":              {complete("g", "w", 199, 200), "**missed**", false},
	} {
		if got := tt.f.verdict(); got != tt.verdict || tt.f.fails() != tt.fails {
			t.Errorf("%s: %q, fails %v, want %q, %v", name, got, tt.f.fails(), tt.verdict, tt.fails)
		}
		if err := judge([]figure{tt.f}); (err != nil) != tt.fails {
			t.Errorf("%s: judge gave %v", name, err)
		}
	}
}

func TestWritePage(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "page.md")
	text := table([]figure{sized("Sizes", "it", 3e6, 20e6), complete("Lists", "all", 1, 2)})
	for _, page := range []string{"", beginMark, endMark + beginMark} {
		if _, err := splice(page, text); err == nil {
			t.Errorf("splice into %q gave no error", page)
		}
	}
	if err := os.WriteFile(path, []byte("before\n"+beginMark+"old\n"+endMark+"after\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time changes nothing
		if err := writePage(path, text); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := "before\n" + beginMark + `
### Sizes

| what | budget | measured | |
| --- | --- | --- | --- |
| it | 20 MB | 3.00 MB | met |

### Lists

| what | budget | measured | |
| --- | --- | --- | --- |
| all | 2 of 2 | 1 of 2 | **missed** |

` + endMark + "after\n"
	if string(got) != want {
		t.Errorf("the page is\n%s\nwant\n%s", got, want)
	}
	if err := writePage(path+"missing", text); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("a page that is not there: %v", err)
	}
}

func TestResident(t *testing.T) {
	t.Parallel()
	size, err := resident(os.Getpid())
	if err != nil || size < 1<<20 || size > 1<<32 {
		t.Errorf("this process holds %d bytes, %v", size, err)
	}
	if _, err := resident(-1); err == nil {
		t.Error("a process that is not there has memory")
	}
}
