package main

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParse(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		in   string
		want []string // a line each: column, style and text of its spans
	}{
		"plain":            {"a b\nc\n", []string{"0{}a b", "0{}c"}},
		"no end of line":   {"a", []string{"0{}a"}},
		"empty at the end": {"a\n\n \n", []string{"0{}a"}},
		"empty between":    {"a\n\nb\n", []string{"0{}a", "", "0{}b"}},
		"colour":           {"x\x1b[31mred\x1b[39my\n", []string{"0{}x 1{#ff7b72}red 4{}y"}},
		"over lines":       {"\x1b[1ma\nb\x1b[0mc\n", []string{"0{bold}a", "0{bold}b 1{}c"}},
		"reset by nothing": {"\x1b[1ma\x1b[mb\n", []string{"0{bold}a 1{}b"}},
		"several codes":    {"\x1b[1;32;44ma\n", []string{"0{#56d364 on #79c0ff bold}a"}},
		"bright":           {"\x1b[92ma\x1b[104mb\n", []string{"0{#7ee787}a 1{#7ee787 on #a5d6ff}b"}},
		"of 256":           {"\x1b[38;5;196ma\x1b[38;5;244mb\x1b[38;5;1mc\n", []string{"0{#ff0000}a 1{#808080}b 2{#ff7b72}c"}},
		"true colour":      {"\x1b[38;2;1;2;3ma\n", []string{"0{#010203}a"}},
		"broken colour":    {"\x1b[38;2;1ma\x1b[38mb\x1b[38;5;999mc\n", []string{"0{}a 1{}b 2{}c"}},
		"other sequences":  {"\x1b[2Ka\x1b(Bb\x1b]8;;http://x\x1b\\c\x1b]0;t\ad\n", []string{"0{}a 1{}b 2{}c 3{}d"}},
		"cut off":          {"a\x1b[31", []string{"0{}a"}},
		"control bytes":    {"a\x00\x08b\n", []string{"0{}ab"}},
		"box drawing":      {"├─ \x1b[36mx\n", []string{"0{}├─  3{#56d4dd}x"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, line := range parse(tt.in) {
				var spans []string
				for _, s := range line {
					spans = append(spans, fmt.Sprintf("%d{%s}%s", s.column, describe(s.style), string(s.text)))
				}
				got = append(got, strings.Join(spans, " "))
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func describe(s style) string {
	words := []string{}
	add := func(on bool, word string) {
		if on {
			words = append(words, word)
		}
	}
	add(s.fg != "", s.fg)
	add(s.bg != "", "on "+s.bg)
	add(s.bold, "bold")
	return strings.Join(words, " ")
}

// TestPalette holds what svg.go says of the colours: they can be read on the background.
func TestPalette(t *testing.T) {
	t.Parallel()
	for _, colour := range append([]string{foreground, muted}, palette[:]...) {
		if c := contrast(colour, background); c < 4.5 {
			t.Errorf("%s on %s has a contrast of %.1f, want 4.5", colour, background, c)
		}
	}
}

// contrast is that of WCAG 2.2.
func contrast(a, b string) float64 {
	la, lb := luminance(a), luminance(b)
	return (max(la, lb) + 0.05) / (min(la, lb) + 0.05)
}

func luminance(colour string) float64 {
	var c [3]uint8
	_, _ = fmt.Sscanf(colour, "#%02x%02x%02x", &c[0], &c[1], &c[2])
	sum := 0.0
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		v := float64(c[i]) / 255
		if v <= 0.04045 {
			v /= 12.92
		} else {
			v = math.Pow((v+0.055)/1.055, 2.4)
		}
		sum += weight * v
	}
	return sum
}

func TestPieces(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"a b": "5a b", "  a": "7a", "a  b": "5a|8b", "a   b c ": "5a|9b c", "": "", "  ": "", " é  ü": "6é|9ü",
	} {
		var got []string
		for _, p := range (span{column: 5, text: []rune(in)}).pieces() {
			got = append(got, fmt.Sprint(p.column)+string(p.text))
		}
		if strings.Join(got, "|") != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestMissingFile(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"no file"}, {"a=" + t.TempDir() + "/none"}} {
		if err := run(args); err == nil || !strings.HasPrefix(err.Error(), "picture: ") {
			t.Errorf("run(%q): %v", args, err)
		}
	}
}

// FuzzDraw: whatever a terminal showed, the picture is well-formed XML.
func FuzzDraw(f *testing.F) {
	for _, seed := range []string{"a\n", "\x1b[1;31m<&\">\x1b[0m", "\x1b]8;;x\x1b\\y", "\x1b[38;5;", "\xff\x00\x1b", "\x1b[7m \x1b[48;5;255mx"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var out strings.Builder
		draw(&out, []window{{title: text, lines: parse(text)}})
		dec := xml.NewDecoder(strings.NewReader(out.String()))
		for {
			if _, err := dec.Token(); errors.Is(err, io.EOF) {
				return
			} else if err != nil {
				t.Fatalf("%v in %q", err, out.String())
			}
		}
	})
}
