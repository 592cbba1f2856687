package report

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cb02dfca/micro/bench/internal/cell"
	"github.com/cb02dfca/micro/bench/internal/result"
)

// Charts draws into the folder dir: bars for each cell that all peers are compared in ("bars-1k-64-1.svg"), curves for each
// axis ("curve-callers.svg").
func Charts(dir string, s *result.Set) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	d := &document{Set: s}
	for _, c := range d.chosen(func(c cell.Cell) bool { return compared(c) || flowing(c) }) {
		if err := os.WriteFile(filepath.Join(dir, barsName(c)), []byte(bars(d, c)), 0o644); err != nil {
			return err
		}
	}
	for _, a := range axes {
		cells := d.on(a)
		if len(cells) == 0 {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, curveName(a)), []byte(curves(d, a, cells)), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func barsName(c cell.Cell) string {
	return "bars-" + strings.NewReplacer("/", "-", ":", "-", "@", "-at-").Replace(c.String()) + ".svg"
}

func curveName(a axis) string { return "curve-" + a.name + ".svg" }

// style follows the reader's setting, light or dark; the chart has a ground of its own, since the page around it may not.
const style = `<style>
.ground{fill:#fff}
text{font:13px system-ui,sans-serif;fill:#24292f}
.title{font-weight:600;font-size:15px}
.soft{fill:#57606a;font-size:12px}
.axis{stroke:#8c959f;stroke-width:1}
.grid{stroke:#8c959f;stroke-width:.5;stroke-opacity:.5}
.ours{fill:#1a7f37}.peer{fill:#6e7781}.limit{fill:#bf8700}.spread{stroke:#24292f;stroke-width:1.5}
@media (prefers-color-scheme:dark){.ground{fill:#0d1117}text{fill:#e6edf3}.soft{fill:#9198a1}.ours{fill:#3fb950}.peer{fill:#848d97}.limit{fill:#d29922}.spread{stroke:#e6edf3}}
</style>
`

func svg(width, height int, label, body string) string {
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="%s">`+"\n%s"+`<rect class="ground" width="100%%" height="100%%" rx="8"/>`+"\n%s</svg>\n",
		width, height, width, height, escape(label), style, body)
}

func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;").Replace(s)
}

// bars draws a bar for each peer in a cell, the cheapest first, with the quartiles as a line.
func bars(d *document, c cell.Cell) string {
	const left, right, row, top = 120, 130, 24, 64
	const width = 760
	type bar struct {
		peer string
		cpu  result.Summary
	}
	var all []bar
	for _, p := range d.Peers() {
		if d.Has(c.String(), p) {
			all = append(all, bar{p, d.Of(c.String(), p, (*result.Load).CPU)})
		}
	}
	slices.SortStableFunc(all, func(a, b bar) int { return compare(a.cpu.Median, b.cpu.Median) })
	high := 0.0
	for _, b := range all {
		high = max(high, b.cpu.Upper)
	}
	x := func(v float64) float64 { return left + v/high*float64(width-left-right) }
	var b strings.Builder
	title := c.Label()
	fmt.Fprintf(&b, `<text class="title" x="8" y="22">%s</text><text class="soft" x="8" y="42">CPU in µs each, client and server; shorter is better; in brackets how many times below gRPC-Go; %s</text>`+"\n", escape(title), regime(c))
	for i, e := range all {
		y := top + i*row
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`, left-8, y+13, escape(e.peer))
		fmt.Fprintf(&b, `<rect class="%s" x="%d" y="%d" width="%.1f" height="16" rx="2"/>`, class(e.peer), left, y, max(1, x(e.cpu.Median)-left))
		fmt.Fprintf(&b, `<line class="spread" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/>`, x(e.cpu.Lower), y+8, x(e.cpu.Upper), y+8)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d">%s</text>`+"\n", x(max(e.cpu.Upper, e.cpu.Median))+8, y+13, figure(e.cpu.Median)+below(d, c, e.peer))
	}
	return svg(width, top+len(all)*row+12, title, b.String())
}

// below says in brackets how many times less than gRPC-Go a peer takes.
func below(d *document, c cell.Cell, peer string) string {
	if r := d.Ratio(c.String(), baseline, peer, (*result.Load).CPU); r.N > 0 && peer != baseline {
		return " (" + figure(r.Median) + "×)"
	}
	return ""
}

func compare(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// class tells this project's bars and the limits from the peers'.
func class(peer string) string {
	switch {
	case strings.HasPrefix(peer, "micro"):
		return "ours"
	case slices.Contains(limits, peer):
		return "limit"
	}
	return "peer"
}

// A scale gives the place of a value between 0 and 1.
type scale func(float64) float64

func logarithmic(low, high float64) scale {
	return func(v float64) float64 { return max(0, math.Log(v/low)/math.Log(high/low)) }
}
