package report

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cb02dfca/micro/bench/internal/cell"
	"github.com/cb02dfca/micro/bench/internal/result"
)

// The lines of a document that the tables stand between.
const (
	beginMark = "<!-- bench: begin -->"
	endMark   = "<!-- bench: end -->"
)

// Document writes the tables into the file at path, between its marks. They show the charts in the folder charts, unless that
// is empty.
func Document(path, charts string, s *result.Set) error {
	if charts != "" {
		var err error
		if charts, err = relative(filepath.Dir(path), charts); err != nil {
			return err
		}
	}
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	head, rest, ok := bytes.Cut(old, []byte(beginMark+"\n"))
	_, tail, ok2 := bytes.Cut(rest, []byte(endMark))
	if !ok || !ok2 {
		return fmt.Errorf("%s: no lines %s and %s to write the tables between", path, beginMark, endMark)
	}
	text := string(head) + beginMark + "\n\n" + Markdown(s, charts) + "\n" + endMark + string(tail)
	return os.WriteFile(path, []byte(text), 0o644)
}

// relative gives the way from one folder to another, as a link has it.
func relative(from, to string) (string, error) {
	from, err := filepath.Abs(from)
	if err != nil {
		return "", err
	}
	if to, err = filepath.Abs(to); err != nil {
		return "", err
	}
	to, err = filepath.Rel(from, to)
	return filepath.ToSlash(to), err
}

// Markdown gives the tables of what was measured, with links to the charts in the folder charts, unless that is empty.
func Markdown(s *result.Set, charts string) string {
	d := &document{Set: s, charts: charts}
	d.hosts()
	d.claims()
	d.busy()
	d.paced()
	d.streams()
	d.fanout()
	d.curves()
	d.idle()
	d.starts()
	d.detail()
	return strings.TrimRight(d.String(), "\n") + "\n"
}

// document is being written.
type document struct {
	*result.Set
	strings.Builder
	charts string
}

// chart shows a chart, where there are any.
func (d *document) chart(name, label string) {
	if d.charts != "" {
		d.printf("![%s](%s/%s)\n\n", label, d.charts, name)
	}
}

func (d *document) printf(format string, args ...any) { fmt.Fprintf(&d.Builder, format, args...) }

// table writes a table unless it has no rows.
func (d *document) table(title, note string, header []string, rows [][]string) {
	if len(rows) == 0 {
		return
	}
	d.printf("### %s\n\n", title)
	if note != "" {
		d.printf("%s\n\n", note)
	}
	d.rows(header, rows)
}

func (d *document) rows(header []string, rows [][]string) {
	d.printf("| %s |\n|%s\n", strings.Join(header, " | "), strings.Repeat(" --- |", len(header)))
	for _, r := range rows {
		d.printf("| %s |\n", strings.Join(r, " | "))
	}
	d.printf("\n")
}

func (d *document) hosts() {
	for _, h := range d.Hosts {
		d.printf("%s, %d threads; Linux %s, %s; %s; %s. Load at the start: %s.", h.CPU, h.Threads, h.Kernel, h.Go, h.Date, h.Settings, h.LoadAvg)
		for _, m := range slices.Sorted(keys(h.Versions)) {
			d.printf(" %s %s.", m[strings.LastIndex(m, "/")+1:], h.Versions[m])
		}
		d.printf("\n\n")
	}
}

func keys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// chosen gives the cells that a table is of.
func (d *document) chosen(want func(cell.Cell) bool) []cell.Cell {
	var out []cell.Cell
	for _, text := range d.Cells() {
		if c, err := cell.Parse(text); err == nil && want(c) {
			out = append(out, c)
		}
	}
	return out
}

// compared tells the cells that all peers were measured in from those of the curves.
func compared(c cell.Cell) bool {
	return c.Kind == cell.Call && c.Nodes == 0 && c.Endpoints == 0 && slices.Contains(comparedCells, c.String())
}

var comparedCells = []string{"16/1/1", "1k/1/1", "64k/1/1", "16/64/1", "1k/64/1", "64k/64/1", "1k/64/8", "64k/64/8", "16/512/8", "1k/512/8", "1k/64/1@10000"}

// busy is the table of every peer in every closed cell.
func (d *document) busy() {
	cells := d.chosen(func(c cell.Cell) bool { return compared(c) && c.Rate == 0 })
	d.matrix("Calls, as fast as they go",
		"CPU in µs per call, client and server together, median; in brackets how many times less than gRPC-Go in the same round, median. With 1 caller it is a single caller's cost, with more that of a busy process.",
		cells)
}

// paced is the table at a fixed rate.
func (d *document) paced() {
	cells := d.chosen(func(c cell.Cell) bool { return compared(c) && c.Rate > 0 })
	d.matrix("Calls at a fixed rate",
		"The same, but calls are started by the clock and the machine is not busy: what a busy connection wins by writing many calls at once is not there. The timers that start the calls are in the figures of all.",
		cells)
}

func (d *document) matrix(title, note string, cells []cell.Cell) {
	header := []string{"peer"}
	for _, c := range cells {
		header = append(header, c.Label())
	}
	var rows [][]string
	for _, peer := range d.Peers() {
		row, some := []string{"`" + peer + "`"}, false
		for _, c := range cells {
			text := c.String()
			if !d.Has(text, peer) {
				row = append(row, "–")
				continue
			}
			some = true
			entry := figure(d.Of(text, peer, (*result.Load).CPU).Median)
			row = append(row, entry+below(d, c, peer))
		}
		if some {
			rows = append(rows, row)
		}
	}
	d.table(title, note, header, rows)
	for _, c := range cells {
		d.chart(barsName(c), c.Label())
	}
}

// detail has everything else of each cell, folded away.
func (d *document) detail() {
	cells := d.chosen(compared)
	if len(cells) == 0 {
		return
	}
	d.printf("### All figures of the calls\n\nMedians of the rounds, and the quartiles of the CPU time. Allocations are for a call, RSS is the most that was resident.\n\n")
	for _, c := range cells {
		text := c.String()
		d.printf("<details><summary>%s</summary>\n\n", c.Label())
		var rows [][]string
		for _, peer := range d.Peers() {
			if !d.Has(text, peer) {
				continue
			}
			of := func(f result.Figure) float64 { return d.Of(text, peer, f).Median }
			cpu := d.Of(text, peer, (*result.Load).CPU)
			rows = append(rows, []string{
				"`" + peer + "`", figure(cpu.Median), figure(cpu.Lower) + " to " + figure(cpu.Upper), figure(of(clientCPU)), figure(of(serverCPU)),
				thousands(of((*result.Load).Rate)), figure(of(quantile(0))), figure(of(quantile(1))), figure(of(quantile(2))),
				figure(of(clientMallocs)), figure(of(serverMallocs)), mib(of(clientPeak)), mib(of(serverPeak)),
			})
		}
		d.rows([]string{"peer", "µs CPU", "quartiles", "client", "server", "calls/s", "p50 µs", "p99 µs", "p999 µs",
			"allocs, client", "server", "peak RSS MiB, client", "server"}, rows)
		d.printf("</details>\n\n")
	}
}

// claims says what the project may say of itself: each claim with its regime.
func (d *document) claims() {
	var rows [][]string
	for _, c := range d.chosen(compared) {
		text := c.String()
		if !d.Has(text, "micro") || !d.Has(text, baseline) {
			continue
		}
		below := d.Ratio(text, baseline, "micro", (*result.Load).CPU)
		limit := d.Limit(text, "micro", limits, (*result.Load).CPU)
		bare := d.Ratio(text, "micro", "micro-bare", (*result.Load).CPU)
		tail := d.Ratio(text, "micro", baseline, quantile(1))
		rate := d.Ratio(text, "micro", baseline, (*result.Load).Rate)
		rows = append(rows, []string{c.Label(), regime(c), ratio(below), figure(below.Lower), ratio(rate), ratio(tail), ratio(limit), ratio(bare)})
	}
	d.table("A whole call of this project beside gRPC-Go, the limit, and the bare transport",
		"Each ratio is taken within a round, then the median of the rounds, and for the first the lower quartile as well. The limit is the better of `raw-mux` and `raw-pp` in that round.",
		[]string{"cell", "regime", "CPU, × below gRPC-Go", "lower quartile", "calls/s, × gRPC-Go", "p99, × gRPC-Go", "CPU, × the limit", "CPU, × the bare call"}, rows)
}

// regime names what a cell is an example of.
func regime(c cell.Cell) string {
	switch {
	case c.Rate > 0:
		return "fixed rate"
	case c.Callers == 1:
		return "single caller"
	}
	return "busy"
}

func ratio(s result.Summary) string {
	if s.N == 0 {
		return "–"
	}
	return figure(s.Median)
}
