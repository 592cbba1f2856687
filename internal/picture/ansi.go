package main

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// style is how text looks. Colours are CSS colours; empty is the default.
type style struct {
	fg, bg                           string
	bold, faint, italic, under, swap bool
}

// span is text of one style, with the column that it begins at.
type span struct {
	column int
	text   []rune
	style  style
}

// parse splits text into lines of spans. It knows SGR (ECMA-48, 8.3.117), drops every other control sequence, and takes
// each character for one column wide. Lines that are empty at the end are left out.
func parse(text string) [][]span {
	var (
		lines [][]span
		now   style
	)
	for line := range strings.Lines(text) {
		var spans []span
		column := 0
		for rest := strings.TrimRight(line, "\r\n"); rest != ""; {
			if strings.HasPrefix(rest, "\x1b") {
				var codes string
				if codes, rest = escape(rest); codes != "" {
					now = now.apply(strings.TrimSuffix(codes, "m"))
				}
				continue
			}
			end := strings.IndexByte(rest, '\x1b')
			if end < 0 {
				end = len(rest)
			}
			printable := strings.Map(func(r rune) rune {
				if unicode.IsControl(r) {
					return -1
				}
				return r
			}, strings.ToValidUTF8(rest[:end], "\uFFFD"))
			rest = rest[end:]
			if chars := []rune(printable); len(chars) > 0 {
				spans = append(spans, span{column: column, text: chars, style: now})
				column += len(chars)
			}
		}
		lines = append(lines, spans)
	}
	for len(lines) > 0 && blank(lines[len(lines)-1]) {
		lines = lines[:len(lines)-1]
	}
	return lines
}

func blank(spans []span) bool {
	for _, s := range spans {
		if strings.TrimSpace(string(s.text)) != "" {
			return false
		}
	}
	return true
}

// escape takes the sequence off that s begins with. sgr is its parameters and the final "m"; empty for all others.
func escape(s string) (sgr, rest string) {
	switch {
	case len(s) < 2:
		return "", ""
	case s[1] == '[': // CSI: parameters, then a byte from 0x40 to 0x7e
		for i := 2; i < len(s); i++ {
			if s[i] >= 0x40 && s[i] <= 0x7e {
				if s[i] == 'm' {
					return s[2 : i+1], s[i+1:]
				}
				return "", s[i+1:]
			}
		}
		return "", ""
	case s[1] == ']': // OSC: up to BEL or ESC \
		bel, st := strings.IndexByte(s, '\a'), strings.Index(s[1:], "\x1b\\")
		switch {
		case st >= 0 && (bel < 0 || st+1 < bel):
			return "", s[st+3:]
		case bel >= 0:
			return "", s[bel+1:]
		}
		return "", ""
	case s[1] == '(' || s[1] == ')': // a character set, one byte
		return "", s[min(3, len(s)):]
	}
	return "", s[2:]
}

// apply gives the style after the parameters of an SGR.
func (s style) apply(params string) style {
	codes := strings.FieldsFunc(params, func(r rune) bool { return r == ';' || r == ':' })
	if len(codes) == 0 {
		return style{}
	}
	for i := 0; i < len(codes); i++ {
		n, err := strconv.Atoi(codes[i])
		if err != nil {
			continue
		}
		switch {
		case n == 38 || n == 48:
			colour, used := extended(codes[i+1:])
			i += used
			if n == 38 {
				s.fg = colour
			} else {
				s.bg = colour
			}
		default:
			s = s.attribute(n)
		}
	}
	return s
}

func (s style) attribute(n int) style {
	switch {
	case n == 0:
		return style{}
	case n == 1:
		s.bold = true
	case n == 2:
		s.faint = true
	case n == 3:
		s.italic = true
	case n == 4:
		s.under = true
	case n == 7:
		s.swap = true
	case n == 22:
		s.bold, s.faint = false, false
	case n == 23:
		s.italic = false
	case n == 24:
		s.under = false
	case n == 27:
		s.swap = false
	case n == 39:
		s.fg = ""
	case n == 49:
		s.bg = ""
	case n >= 30 && n <= 37:
		s.fg = palette[n-30]
	case n >= 90 && n <= 97:
		s.fg = palette[n-90+8]
	case n >= 40 && n <= 47:
		s.bg = palette[n-40]
	case n >= 100 && n <= 107:
		s.bg = palette[n-100+8]
	}
	return s
}

// extended reads what follows 38 or 48: "5;N" of the 256 colours of xterm, or "2;R;G;B". used is how many codes it took.
func extended(codes []string) (colour string, used int) {
	if len(codes) == 0 {
		return "", 0
	}
	n := make([]int, 0, 4)
	for _, c := range codes[:min(4, len(codes))] {
		v, err := strconv.ParseUint(c, 10, 8)
		if err != nil {
			break
		}
		n = append(n, int(v))
	}
	switch {
	case len(n) >= 2 && n[0] == 5:
		return indexed(n[1]), 2
	case len(n) >= 4 && n[0] == 2:
		return rgb(n[1], n[2], n[3]), 4
	}
	return "", len(n)
}

func indexed(n int) string {
	switch {
	case n < 16:
		return palette[n]
	case n >= 232:
		grey := 8 + 10*(n-232)
		return rgb(grey, grey, grey)
	}
	level := func(i int) int {
		if i == 0 {
			return 0
		}
		return 55 + 40*i
	}
	n -= 16
	return rgb(level(n/36), level(n/6%6), level(n%6))
}

func rgb(r, g, b int) string { return fmt.Sprintf("#%02x%02x%02x", r, g, b) }
