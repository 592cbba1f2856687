package suggest_test

import (
	"strings"
	"testing"

	"github.com/cb02dfca/micro/internal/suggest"
)

func TestClosest(t *testing.T) {
	t.Parallel()
	commands := []string{"call", "list", "describe", "publish", "subscribe", "run", "health"}
	for _, tc := range []struct {
		name, word string
		among      []string
		want       string
	}{
		{"a letter missing", "cal", commands, "call"},
		{"a letter too many", "liist", commands, "list"},
		{"a letter wrong", "lust", commands, "list"},
		{"two letters swapped", "clal", commands, "call"},
		{"two slips", "publsih", commands, "publish"},
		{"letter case", "LIST", commands, "list"},
		{"the beginning of it", "desc", commands, "describe"},
		{"more than it", "listing", commands, "list"},
		{"nothing near", "frobnicate", commands, ""},
		{"short words are not all alike", "xy", []string{"ab", "cd"}, ""},
		{"one letter", "n", []string{"id", "to"}, ""},
		{"itself", "run", []string{"ruin", "run"}, "run"},
		{"the nearer of two", "greter", []string{"garter", "greeter"}, "greeter"},
		{"the first of equals", "bat", []string{"cat", "rat"}, "cat"},
		{"letters beyond ASCII", "größe", []string{"große"}, "große"},
		{"no word", "", commands, ""},
		{"nothing to choose from", "call", nil, ""},
		{"a word too long to compare", strings.Repeat("a", 1<<20), []string{strings.Repeat("a", 1<<20-1)}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if got := suggest.Closest(tc.word, tc.among); got != tc.want {
				t.Errorf("Closest(%.20q) = %q, want %q", tc.word, got, tc.want)
			}
		})
	}
}

func FuzzClosest(f *testing.F) {
	f.Add("nme", "name")
	f.Add("\xff", "é")
	f.Fuzz(func(t *testing.T, word, other string) {
		if got := suggest.Closest(word, []string{other, word}); got != word && got != other {
			t.Errorf("Closest(%q) = %q, which was not among the words", word, got)
		}
		if a, b := suggest.Closest(word, []string{other}), suggest.Closest(other, []string{word}); (a == "") != (b == "") {
			t.Errorf("nearness of %q and %q depends on the side", word, other)
		}
	})
}
