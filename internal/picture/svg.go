package main

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
)

// The picture brings its own background, so that it reads the same on a light page and on a dark one. Each colour of
// the palette, black included, has a contrast to it of 4.5 at least (WCAG 2.2, 1.4.3).
const (
	background = "#161b22"
	bar        = "#21262d"
	frame      = "#3d444d"
	foreground = "#e6edf3"
	muted      = "#9da7b3"
)

// palette is the 16 colours of a terminal: black, red, green, yellow, blue, magenta, cyan, white, and the bright ones.
var palette = [16]string{
	"#8b949e", "#ff7b72", "#56d364", "#e3b341", "#79c0ff", "#d2a8ff", "#56d4dd", "#e6edf3",
	"#9da7b3", "#ffa198", "#7ee787", "#f2cc60", "#a5d6ff", "#e2c5ff", "#b3f0ff", "#ffffff",
}

// Lengths are pixels. The columns are as wide as those of most monospaced fonts at this size; textLength holds the
// others to it.
const (
	size    = 14.0
	advance = 8.43
	leading = 19.0
	margin  = 18.0 // of the text in its window
	title   = 30.0 // height of the bar above
	gap     = 16.0 // between windows
	border  = 1.0
)

// window is what one terminal showed.
type window struct {
	title string
	lines [][]span
}

func (w window) columns() int {
	n := 0
	for _, line := range w.lines {
		for _, s := range line {
			n = max(n, s.column+len(s.text))
		}
	}
	return n
}

func (w window) height() float64 {
	return title + 2*margin + leading*float64(len(w.lines)) - (leading - size)
}

// draw writes the windows below each other.
func draw(out io.Writer, windows []window) {
	columns, height := 0, 2*border-gap
	var names []string
	for _, w := range windows {
		columns = max(columns, w.columns())
		height += w.height() + gap
		names = append(names, w.title)
	}
	width := 2*margin + advance*float64(columns)
	fmt.Fprintf(out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" width="%.0f" height="%.0f" role="img" aria-label="%s">`+"\n",
		width+2*border, height, width+2*border, height, escaped("Terminals: "+strings.Join(names, ", ")))
	fmt.Fprintf(out, `<style>text{font:%.0fpx ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono","Liberation Mono",monospace;fill:%s}</style>`+"\n",
		size, foreground)
	top := border
	for _, w := range windows {
		w.draw(out, top, width)
		top += w.height() + gap
	}
	fmt.Fprintln(out, "</svg>")
}

func (w window) draw(out io.Writer, top, width float64) {
	fmt.Fprintf(out, `<g transform="translate(%.0f %.0f)">`+"\n", border, top)
	fmt.Fprintf(out, `<rect width="%.1f" height="%.1f" rx="8" fill="%s" stroke="%s"/>`+"\n", width, w.height(), background, frame)
	fmt.Fprintf(out, `<path d="M0 %.0fV8a8 8 0 0 1 8-8H%.1fa8 8 0 0 1 8 8V%.0fz" fill="%s"/>`+"\n", title, width-8, title, bar)
	fmt.Fprintf(out, `<text x="%.1f" y="%.1f" text-anchor="middle" style="fill:%s">%s</text>`+"\n", width/2, title-10, muted, escaped(w.title))
	for i, line := range w.lines {
		y := title + margin + size - 3 + leading*float64(i)
		for _, s := range line {
			s.draw(out, y)
		}
	}
	fmt.Fprintln(out, "</g>")
}

// draw writes a span on the base line y.
func (s span) draw(out io.Writer, y float64) {
	fg, bg := s.style.fg, s.style.bg
	if s.style.swap {
		fg, bg = or(bg, background), or(fg, foreground)
	}
	x, width := margin+advance*float64(s.column), advance*float64(len(s.text))
	if bg != "" {
		fmt.Fprintf(out, `<rect x="%.2f" y="%.2f" width="%.2f" height="%.0f" fill="%s"/>`+"\n", x, y-size+1, width, leading, bg)
	}
	for _, w := range s.pieces() {
		x, width := margin+advance*float64(w.column), advance*float64(len(w.text))
		fmt.Fprintf(out, `<text x="%.2f" y="%.1f" textLength="%.2f"%s>%s</text>`+"\n", x, y, width, s.style.css(fg), escaped(string(w.text)))
	}
}

// pieces splits a span where two spaces or more stand together: not every viewer of SVG keeps those.
func (s span) pieces() []span {
	var out []span
	begin, end := -1, 0 // of the piece, which ends with its last character that is no space
	flush := func() {
		if begin >= 0 {
			out = append(out, span{column: s.column + begin, text: s.text[begin:end], style: s.style})
		}
		begin = -1
	}
	for i, r := range s.text {
		switch {
		case r == ' ':
			if i > end {
				flush()
			}
			continue
		case begin < 0:
			begin = i
		}
		end = i + 1
	}
	flush()
	return out
}

func (s style) css(fg string) string {
	var b strings.Builder
	if fg != "" {
		b.WriteString("fill:" + fg + ";")
	}
	for _, p := range []struct {
		on   bool
		rule string
	}{{s.bold, "font-weight:bold;"}, {s.faint, "opacity:.75;"}, {s.italic, "font-style:italic;"}, {s.under, "text-decoration:underline;"}} {
		if p.on {
			b.WriteString(p.rule)
		}
	}
	if b.Len() == 0 {
		return ""
	}
	return ` style="` + strings.TrimSuffix(b.String(), ";") + `"`
}

func or(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

// escaped makes text safe between tags and in attributes. Characters that XML cannot hold are replaced.
func escaped(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // a Builder does not fail
	return b.String()
}
