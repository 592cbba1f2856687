// Package terminal makes text from strangers fit to show, and tells what the standard streams are.
//
// A service's name, its metadata, its log lines and its errors come from the network. On a terminal a control character
// in them could move the cursor, rewrite what stands there, set the clipboard or fake a prompt; an invisible or a
// direction-changing one could make a name look like another. Whatever is shown passes through this package.
package terminal

import (
	"os"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// MaxCell is the limit of one table cell, in runes.
const MaxCell = 256

// Safe gives s with everything escaped that is not plain visible text: C0 controls but newline and tab, DEL, C1
// controls, bytes that are no UTF-8, format characters (zero width, bidi controls and tags: Unicode category Cf) and
// the line and paragraph separators. An escape reads \x1b or \u202e. Safe text comes back as it is, so Safe may be
// applied twice.
func Safe(s string) string { return escape(s, true) }

// Line is Safe for text that must stay on one line and in one column: it escapes newline and tab too.
func Line(s string) string { return escape(s, false) }

// Cell is Line, cut to MaxCell runes; a cut is marked by an ellipsis, which is the last of them.
func Cell(s string) string {
	if len(s) > MaxCell*utf8.UTFMax { // no need to escape what is cut off anyway
		s = s[:MaxCell*utf8.UTFMax]
	}
	return Clip(Line(s), MaxCell)
}

// Clip cuts s to width runes, the last of which is then an ellipsis.
func Clip(s string, width int) string {
	if width < 1 || utf8.RuneCountInString(s) <= width {
		return s
	}
	n := 0
	for i := range s {
		if n == width-1 {
			return s[:i] + "…"
		}
		n++
	}
	return s
}

// JSON gives a JSON text in which each character that Safe escapes is written as \uXXXX, which means the same in JSON:
// encoding/json escapes C0 alone. Such characters stand inside strings only, so that the text stays valid.
func JSON(text []byte) []byte {
	i := 0
	for i < len(text) && text[i] < utf8.RuneSelf && text[i] != 0x7f {
		i++
	}
	if i == len(text) {
		return text
	}
	out := append(make([]byte, 0, len(text)+16), text[:i]...)
	for i < len(text) {
		r, size := utf8.DecodeRune(text[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			out = append(out, `\ufffd`...)
		case r < ' ' || !hostile(r): // below the space stands only layout: a string has no raw control
			out = append(out, text[i:i+size]...)
		case r > 0xffff:
			out = appendUnit(appendUnit(out, 0xd800+(r-0x10000)>>10), 0xdc00+(r-0x10000)&0x3ff)
		default:
			out = appendUnit(out, r)
		}
		i += size
	}
	return out
}

// appendUnit appends one UTF-16 code unit as JSON writes it.
func appendUnit(dst []byte, u rune) []byte {
	const hex = "0123456789abcdef"
	return append(dst, '\\', 'u', hex[u>>12&15], hex[u>>8&15], hex[u>>4&15], hex[u&15])
}

func escape(s string, layout bool) string {
	clean := true
	for _, r := range s { // an invalid byte reads as RuneError
		if r == utf8.RuneError || hostile(r) && (!layout || r != '\n' && r != '\t') {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			writeHex(&b, `\x`, int64(s[i]), 2)
		case !hostile(r) || layout && (r == '\n' || r == '\t'):
			b.WriteString(s[i : i+size])
		case r < 0x100:
			writeHex(&b, `\x`, int64(r), 2)
		case r < 0x10000:
			writeHex(&b, `\u`, int64(r), 4)
		default:
			writeHex(&b, `\U`, int64(r), 8)
		}
		i += size
	}
	return b.String()
}

func writeHex(b *strings.Builder, prefix string, v int64, width int) {
	h := strconv.FormatInt(v, 16)
	b.WriteString(prefix)
	b.WriteString(strings.Repeat("0", max(0, width-len(h))))
	b.WriteString(h)
}

// hostile tells runes that do something to a terminal, or are not seen on it.
func hostile(r rune) bool {
	if r < 0x7f {
		return r < ' '
	}
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp)
}

// IsTerminal reports whether f is a terminal. A nil f is none.
func IsTerminal(f *os.File) bool { return f != nil && term.IsTerminal(int(f.Fd())) }

// Width gives the columns of the terminal f, 0 where they are not known.
func Width(f *os.File) int {
	if f == nil {
		return 0
	}
	w, _, err := term.GetSize(int(f.Fd()))
	if err != nil || w < 1 {
		return 0
	}
	return w
}
