package commands

import (
	"bytes"
	"context"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/fatih/color"
	"github.com/olekukonko/tablewriter"
	"github.com/olekukonko/tablewriter/renderer"
	"github.com/olekukonko/tablewriter/tw"

	"github.com/cb02dfca/micro/internal/suggest"
	"github.com/cb02dfca/micro/internal/terminal"
)

// This file alone imports tablewriter and color: how things look is decided here.

// formats are the values of -o, as the help lists them. "tsv" is what "table" becomes in a pipe.
var formats = [...]string{"table", "wide", "json", "jsonl", "yaml", "name", "tsv"}

// printer writes a command's answer to standard output in the form that was asked for.
type printer struct {
	w      io.Writer
	format string // one of formats
	tty    bool   // of standard output
	width  int
	query  *query // nil for none
	colors palette
	now    func() time.Time
}

// result is a command's answer. One value in several forms: a form that is nil is made of the value.
type result struct {
	// value is the JSON form: what json, jsonl, yaml and -q show. A slice is an array, never null.
	value any
	// table is the form for people who want rows.
	table *table
	// text is the form for people that is no table. It is given a writer whose colours fit, and must pass what came from
	// the network through terminal.Safe.
	text func(w io.Writer, c palette) error
	// names is what -o name shows, one a line; nil is the first column of table.
	names []string
}

// print writes r.
func (p *printer) print(ctx context.Context, r result) error {
	switch {
	case p.query != nil:
		return p.query.print(ctx, p, r.value)
	case p.format == "json":
		return p.json(r.value, "  ")
	case p.format == "jsonl":
		return p.lines(r.value)
	case p.format == "yaml":
		return p.yaml(r.value)
	case p.format == "name":
		return p.names(r)
	case r.text != nil:
		return r.text(p.w, p.colors)
	case r.table == nil:
		return p.json(r.value, "  ")
	case p.format == "tsv" || p.format == "table" && !p.tty:
		return r.table.tsv(p.w, false)
	}
	return r.table.draw(p.w, p.colors, p.width, p.format == "wide", p.now())
}

func (p *printer) names(r result) error {
	names := r.names
	if names == nil && r.table != nil {
		for _, row := range r.table.rows {
			names = append(names, row[0].plain())
		}
	}
	var b strings.Builder
	for _, n := range names {
		b.WriteString(terminal.Line(n) + "\n")
	}
	_, err := io.WriteString(p.w, b.String())
	return err
}

// newPrinter checks the settings of the output. A table that -o asks for is one in a pipe too. more are formats that the
// command has beside the usual ones.
func newPrinter(d *Deps, s settings, more []string) (*printer, error) {
	p := &printer{w: d.Stdout, format: s.output, tty: d.StdoutTTY || s.outputGiven && s.output == "table", width: d.Width,
		colors: newPalette(d, s, d.StdoutTTY), now: d.Now}
	if p.format == "" {
		p.format = "table"
	}
	if known := slices.Concat(formats[:], more); !slices.Contains(known, p.format) {
		f := usage("unknown output format %q, known: %s", p.format, strings.Join(known, ", "))
		if near := suggest.Closest(p.format, known); near != "" {
			f = f.hint("did you mean", "-o "+near)
		}
		return nil, f
	}
	if s.query != "" {
		q, err := compileQuery(s.query)
		if err != nil {
			return nil, err
		}
		p.query = q
	}
	return p, nil
}

// cell is one field of a row. It is shown as text on a terminal and as raw in a pipe.
type cell struct {
	text string // for people; empty is raw
	raw  string
	when time.Time // an age for people, RFC 3339 in a pipe
	mood mood
}

// mood is what a cell's colour tells.
type mood uint8

const (
	plain mood = iota
	good
	warn
	bad
	faint
)

func text(s string) cell        { return cell{raw: s} }
func ageSince(t time.Time) cell { return cell{when: t} }
func (c cell) as(m mood) cell   { c.mood = m; return c }
func (c cell) plain() string    { return c.form(false, time.Time{}) }
func dash(s string) string      { return or(s, "-") }
func or(s, instead string) string {
	if s == "" {
		return instead
	}
	return s
}

func (c cell) form(people bool, now time.Time) string {
	switch {
	case !c.when.IsZero() && people:
		return age(now.Sub(c.when))
	case !c.when.IsZero():
		return c.when.UTC().Format(time.RFC3339)
	case people && c.text != "":
		return c.text
	case c.raw == "":
		return "-" // an empty field is hard to see, and hard to cut
	}
	return c.raw
}

// age tells a duration in its largest unit: 40s, 5m, 2h, 3d.
func age(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Minute:
		return count(int(d/time.Second), "s")
	case d < time.Hour:
		return count(int(d/time.Minute), "m")
	case d < 48*time.Hour:
		return count(int(d/time.Hour), "h")
	}
	return count(int(d/(24*time.Hour)), "d")
}

// table is rows of cells under heads. The first columns are the usual ones; those from wide on are shown by -o wide and in
// a pipe not at all, so that a script's columns stay where they are.
type table struct {
	heads []string
	wide  int // the first column that only -o wide shows; 0 for none
	rows  [][]cell
}

// columns gives how many columns are shown.
func (t *table) columns(wide bool) int {
	if t.wide > 0 && !wide {
		return t.wide
	}
	return len(t.heads)
}

// tsv writes the rows separated by tabs, without heads, times as RFC 3339.
func (t *table) tsv(w io.Writer, wide bool) error {
	var b bytes.Buffer
	for _, row := range t.rows {
		for i := range t.columns(wide) {
			if i > 0 {
				b.WriteByte('\t')
			}
			b.WriteString(terminal.Line(row[i].form(false, time.Time{})))
		}
		b.WriteByte('\n')
	}
	_, err := w.Write(b.Bytes())
	return err
}

// draw writes an aligned table without lines, under heads; nothing at all where there are no rows.
func (t *table) draw(w io.Writer, c palette, width int, wide bool, now time.Time) error {
	if len(t.rows) == 0 {
		return nil
	}
	n := t.columns(wide)
	rows := make([][]string, 0, len(t.rows)+1)
	rows = append(rows, t.heads[:n])
	for _, row := range t.rows {
		line := make([]string, n)
		for i := range n {
			line[i] = terminal.Cell(row[i].form(true, now))
		}
		rows = append(rows, line)
	}
	fitLast(rows, width)
	return drawRows(w, rows, func(i, j int, s string) string {
		if i == 0 {
			return c.head(s)
		}
		return c.paint(t.rows[i-1][j].mood, s)
	})
}

// fitLast cuts the last column where the table is wider than the terminal, but never below its head and eight runes.
func fitLast(rows [][]string, width int) {
	if width == 0 {
		return
	}
	last, used := len(rows[0])-1, 0
	for j := range last {
		widest := 0
		for _, r := range rows {
			widest = max(widest, len([]rune(r[j])))
		}
		used += widest + columnGap
	}
	room := max(width-used, 8, len(rows[0][last]))
	for i := range rows {
		rows[i][last] = terminal.Clip(rows[i][last], room)
	}
}

const columnGap = 3

// drawRows aligns rows to the left, without spaces at the ends of lines. paint colours a cell when its place is known: an
// escape sequence must not count in a column's width.
func drawRows(w io.Writer, rows [][]string, paint func(row, column int, text string) string) error {
	var b bytes.Buffer
	gap := tw.CellPadding{Global: tw.Padding{Left: tw.Empty, Right: strings.Repeat(" ", columnGap), Overwrite: true}}
	left := tw.CellAlignment{Global: tw.AlignLeft}
	t := tablewriter.NewTable(&b,
		tablewriter.WithRenderer(renderer.NewBlueprint(tw.Rendition{Borders: tw.BorderNone, Symbols: tw.NewSymbols(tw.StyleNone),
			Settings: tw.Settings{Lines: tw.LinesNone, Separators: tw.SeparatorsNone}})),
		tablewriter.WithConfig(tablewriter.Config{Row: tw.CellConfig{Padding: gap, Alignment: left,
			Formatting: tw.CellFormatting{AutoWrap: tw.WrapNone, AutoFormat: tw.Off}}}),
		tablewriter.WithTrimSpace(tw.Off),
	)
	if err := t.Bulk(rows); err != nil {
		return err
	}
	if err := t.Render(); err != nil {
		return err
	}
	var out strings.Builder
	row := 0
	for line := range strings.Lines(b.String()) {
		line = strings.TrimRight(line, " \n")
		for j, cell := range rows[min(row, len(rows)-1)] {
			before, after, found := strings.Cut(line, cell)
			if !found { // cannot be: a cell is not changed
				break
			}
			out.WriteString(before + paint(row, j, cell))
			line = after
		}
		out.WriteString(line + "\n")
		row++
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// palette colours text for one stream; the zero palette leaves it as it is. Each stream has its own, since one may be a
// terminal and the other a file.
type palette struct{ on bool }

// newPalette decides about colour: the flag, then NO_COLOR, CLICOLOR_FORCE and TERM=dumb, then whether it is a terminal.
func newPalette(d *Deps, s settings, tty bool) palette {
	switch {
	case s.color == "always":
		return palette{true}
	case s.color == "never", s.color == "auto" && s.colorGiven && !tty:
		return palette{}
	case d.env("NO_COLOR") != "":
		return palette{}
	case d.env("CLICOLOR_FORCE") != "" && d.env("CLICOLOR_FORCE") != "0":
		return palette{true}
	case d.env("TERM") == "dumb":
		return palette{}
	}
	return palette{tty}
}

func (c palette) with(s string, attributes ...color.Attribute) string {
	if !c.on || s == "" {
		return s
	}
	paint := color.New(attributes...)
	paint.EnableColor()
	return paint.Sprint(s)
}

func (c palette) head(s string) string  { return c.with(s, color.Bold) }
func (c palette) bold(s string) string  { return c.with(s, color.Bold) }
func (c palette) faint(s string) string { return c.with(s, color.Faint) }
func (c palette) good(s string) string  { return c.with(s, color.FgGreen) }
func (c palette) warn(s string) string  { return c.with(s, color.FgYellow) }
func (c palette) bad(s string) string   { return c.with(s, color.FgRed, color.Bold) }
func (c palette) name(s string) string  { return c.with(s, color.FgCyan) }

func (c palette) paint(m mood, s string) string {
	switch m {
	case good:
		return c.good(s)
	case warn:
		return c.warn(s)
	case bad:
		return c.bad(s)
	case faint:
		return c.faint(s)
	}
	return s
}
