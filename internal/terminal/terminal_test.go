package terminal_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/cb02dfca/micro/internal/terminal"
)

func TestSafe(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ in, want string }{
		"plain":             {"greeter 1.0", "greeter 1.0"},
		"umlauts and emoji": {"grüße 🙂 世界", "grüße 🙂 世界"},
		"newline and tab":   {"a\n\tb", "a\n\tb"},
		"carriage return":   {"a\rb", `a\x0db`},
		"escape sequence":   {"\x1b[2J\x1b]0;title\a", `\x1b[2J\x1b]0;title\x07`},
		"clipboard":         {"\x1b]52;c;Zm9v\x1b\\", `\x1b]52;c;Zm9v\x1b\`},
		"DEL":               {"a\x7fb", `a\x7fb`},
		"C1 as a rune":      {"a\u009bb", `a\x9bb`},
		"C1 as a byte":      {"a\x9bb", `a\x9bb`},
		"right to left":     {"a\u202egnp.exe", `a\u202egnp.exe`},
		"isolates":          {"\u2066x\u2069", `\u2066x\u2069`},
		"zero width":        {"gree\u200bter\ufeff", `gree\u200bter\ufeff`},
		"line separator":    {"a\u2028b", `a\u2028b`},
		"tag characters":    {"a\U000e0041", `a\U000e0041`},
		"bad UTF-8":         {"a\xff\xfe", `a\xff\xfe`},
		"replacement rune":  {"a\ufffdb", "a\ufffdb"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := terminal.Safe(c.in); got != c.want {
				t.Errorf("Safe(%q) = %q, want %q", c.in, got, c.want)
			}
		})
	}
}

func TestLineAndCell(t *testing.T) {
	t.Parallel()
	if got := terminal.Line("a\tb\nc"); got != `a\x09b\x0ac` {
		t.Errorf("Line = %q", got)
	}
	long := terminal.Cell(strings.Repeat("ü", 1000))
	if n := utf8.RuneCountInString(long); n != terminal.MaxCell || !strings.HasSuffix(long, "…") {
		t.Errorf("Cell of 1000 runes has %d, ends %q", n, long[len(long)-5:])
	}
	if got := terminal.Clip("abc", 3); got != "abc" {
		t.Errorf("Clip of what fits = %q", got)
	}
}

func TestJSONKeepsTheMeaning(t *testing.T) {
	t.Parallel()
	in := "{\n\t\"a\": \"x\u009b\u202e\x7f\U000e0041 ü\"\n}\n"
	out := terminal.JSON([]byte(in))
	if bad := unsafeIn(string(out)); bad != "" {
		t.Errorf("JSON(%q) holds %s: %q", in, bad, out)
	}
	var before, after map[string]string
	if json.Unmarshal([]byte(in), &before) != nil || json.Unmarshal(out, &after) != nil || before["a"] != after["a"] {
		t.Errorf("%q became %q", before, after)
	}
}

func TestAFileIsNoTerminal(t *testing.T) {
	t.Parallel()
	f, err := os.Create(t.TempDir() + "/f")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if terminal.IsTerminal(f) || terminal.Width(f) != 0 || terminal.IsTerminal(nil) || terminal.Width(nil) != 0 {
		t.Error("a file, or nothing, passes for a terminal")
	}
}

// unsafeIn says, independently of the code under test, what in s could harm.
func unsafeIn(s string) string {
	if !utf8.ValidString(s) {
		return "bad UTF-8"
	}
	for _, r := range s {
		switch {
		case r < ' ' && r != '\n' && r != '\t', r >= 0x7f && r < 0xa0, r >= 0x200b && r <= 0x200f, r >= 0x2028 && r <= 0x202e,
			r >= 0x2060 && r <= 0x2069, r == 0xfeff:
			return string(r)
		}
	}
	return ""
}

func FuzzSafe(f *testing.F) {
	for _, s := range []string{"", "a", "\x1b[0m", "\u202e", "\xff", "a\u0085", "世界\u200b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := terminal.Safe(s)
		if bad := unsafeIn(got); bad != "" {
			t.Fatalf("Safe(%q) = %q holds %q", s, got, bad)
		}
		if again := terminal.Safe(got); again != got {
			t.Fatalf("Safe is not idempotent: %q, %q", got, again)
		}
		if cell := terminal.Cell(s); utf8.RuneCountInString(cell) > terminal.MaxCell || strings.ContainsAny(cell, "\n\t") {
			t.Fatalf("Cell(%q) = %q", s, cell)
		}
		encoded, err := json.Marshal(s)
		if err != nil {
			t.Skip()
		}
		var before, after string
		safe := terminal.JSON(encoded)
		if json.Unmarshal(encoded, &before) != nil || json.Unmarshal(safe, &after) != nil || before != after {
			t.Fatalf("JSON changed %q to %q", before, after)
		}
		if bad := unsafeIn(string(safe)); bad != "" {
			t.Fatalf("JSON(%q) holds %q", s, bad)
		}
	})
}
