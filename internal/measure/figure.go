package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"time"
)

// figure is one line of the table.
type figure struct {
	Group    string  `json:"group"`
	What     string  `json:"what"`
	Budget   string  `json:"budget"`   // empty: none was set
	Measured string  `json:"measured"` // for people
	Ratio    float64 `json:"ratio"`    // measured to budget: over 1 it is missed
	Slack    float64 `json:"slack"`    // the ratio that the short form still takes; 0: that of any figure, however bad
}

// verdict says how the figure stands to its budget.
func (f figure) verdict() string {
	switch {
	case f.Budget == "":
		return ""
	case f.Ratio <= 1:
		return "met"
	}
	return "**missed**"
}

// fails reports whether the short form refuses the figure.
func (f figure) fails() bool { return f.Slack > 0 && f.Ratio > f.Slack }

// sample is a row of durations.
type sample []time.Duration

// quantile gives the smallest value that at least the share q of the sample does not pass.
func (s sample) quantile(q float64) time.Duration {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}

// String gives what tables show of a sample.
func (s sample) String() string {
	return fmt.Sprintf("p50 %s, p95 %s", ms(s.quantile(0.5)), ms(s.quantile(0.95)))
}

// within makes a figure whose quantile q is to be at most budget.
func (s sample) within(group, what string, q float64, budget time.Duration) figure {
	f := figure{Group: group, What: what, Measured: s.String()}
	if budget > 0 {
		f.Budget = fmt.Sprintf("p%.0f %s", q*100, ms(budget))
		f.Ratio = float64(s.quantile(q)) / float64(budget)
	}
	if len(s) == 0 {
		f.Measured, f.Ratio = "nothing", math.MaxFloat64
	}
	return f
}

// ms writes a duration in milliseconds.
func ms(d time.Duration) string {
	v := float64(d) / float64(time.Millisecond)
	if math.Abs(v) < 10 {
		return fmt.Sprintf("%.2f ms", v)
	}
	return fmt.Sprintf("%.1f ms", v)
}

// megabytes writes a size: a megabyte is a million bytes.
func megabytes(n int64) string { return fmt.Sprintf("%.2f MB", float64(n)/1e6) }

// sized makes a figure of a size in bytes.
func sized(group, what string, size, budget int64) figure {
	return figure{Group: group, What: what, Budget: fmt.Sprintf("%g MB", float64(budget)/1e6), Measured: megabytes(size), Ratio: float64(size) / float64(budget)}
}

// complete makes a figure of how often everything was found, which has to be always.
func complete(group, what string, good, runs int) figure {
	f := figure{Group: group, What: what, Budget: fmt.Sprintf("%d of %d", runs, runs), Measured: fmt.Sprintf("%d of %d", good, runs), Ratio: 1}
	if good < runs {
		f.Ratio = 2
	}
	return f
}

// table writes figures in Markdown, a table a group.
func table(figures []figure) string {
	var b strings.Builder
	group := ""
	for _, f := range figures {
		if f.Group != group {
			group = f.Group
			fmt.Fprintf(&b, "\n### %s\n\n| what | budget | measured | |\n| --- | --- | --- | --- |\n", group)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", f.What, f.Budget, f.Measured, f.verdict())
	}
	return strings.TrimPrefix(b.String(), "\n")
}

// The marks between which the page is written by this program.
const (
	beginMark = "<!-- measured: begin -->\n"
	endMark   = "<!-- measured: end -->\n"
)

// splice puts text between the marks of a page.
func splice(page, text string) (string, error) {
	before, rest, found := strings.Cut(page, beginMark)
	_, after, ended := strings.Cut(rest, endMark)
	if !found || !ended {
		return "", errors.New("the page has not both marks, " + strings.TrimSpace(beginMark) + " and " + strings.TrimSpace(endMark))
	}
	return before + beginMark + "\n" + text + "\n" + endMark + after, nil
}

// writePage puts text into the page at path.
func writePage(path, text string) error {
	page, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	next, err := splice(string(page), text)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.WriteFile(path, []byte(next), 0o644)
}
