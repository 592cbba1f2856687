package commands_test

import (
	"context"
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cb02dfca/micro/commands"
)

var colours = regexp.MustCompile("\x1b\\[[0-9;]*m")

func FuzzColourJSON(f *testing.F) {
	for _, s := range []string{`{"a":[1,true,null,"x\\\"y"],"b":{}}`, `"\\"`, `-1.5e3`, `[]`, "{\n  \"a\": 1\n}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !json.Valid([]byte(s)) || strings.Contains(s, "\x1b") {
			t.Skip()
		}
		if got := colours.ReplaceAllString(commands.ColourJSON([]byte(s)), ""); got != s {
			t.Errorf("%q became %q", s, got)
		}
	})
}

func FuzzItems(f *testing.F) {
	for _, s := range []string{"a=b", "a:=1 b.c=x", "a[]=1 a[]:=[2]", "=x", "a..b=1", "a[0]=1", "a@b", "a:=", "a\xff=1", "a.b=1 a=2"} {
		f.Add(strings.ReplaceAll(s, " ", "\n"))
	}
	f.Fuzz(func(t *testing.T, s string) {
		words := strings.Split(s, "\n")
		body, err := commands.BuildBody(words)
		var object map[string]any
		if err == nil && json.Unmarshal(body, &object) != nil {
			t.Errorf("%q became %q", words, body)
		}
	})
}

func FuzzReadLines(f *testing.F) {
	for _, s := range []string{"", "a", "a\n", "a\nb", "\n\n", "a\r\nb\r\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		lines, err := commands.ReadLines(strings.NewReader(s))
		if want := slices.Collect(strings.Lines(s)); err != nil || !slices.Equal(lines, want) {
			t.Errorf("%q became %q, %v", s, lines, err)
		}
	})
}

func FuzzReadValues(f *testing.F) {
	for _, s := range []string{"", "1 2", "{}{}[]", `{"a":`, "nul", "\"\\u12\"", "1\n\n2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		values, err := commands.ReadValues(strings.NewReader(s))
		if err == nil {
			t.Fatal("no end")
		}
		for _, v := range values {
			if !json.Valid([]byte(v)) {
				t.Errorf("%q gave %q", s, v)
			}
		}
	})
}

// TestEndlessInput holds that what has no end is refused and not kept.
func TestEndlessInput(t *testing.T) {
	t.Parallel()
	if _, err := commands.ReadValues(endless('[')); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("values: %v", err)
	}
	if _, err := commands.ReadValues(endless('1')); err == nil || !strings.Contains(err.Error(), "larger than 4 MiB") {
		t.Errorf("a value: %v", err)
	}
	if _, err := commands.ReadLines(endless('x')); err == nil || !strings.Contains(err.Error(), "larger than 4 MiB") {
		t.Errorf("a line: %v", err)
	}
	w := talkWorlds["ok"](t)
	for _, args := range [][]string{{"call", "greeter", "Say.Echo"}, {"publish", "topic"}, {"publish", "topic", "-l"}} {
		got := w.feed(t, endless('1'), pipe, args...)
		if got.code != 2 || !strings.Contains(got.stderr, "larger than 4 MiB") {
			t.Errorf("%q: exit %d, %q", args, got.code, got.stderr)
		}
	}
}

type endless byte

func (e endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(e)
	}
	return len(p), nil
}
