package commands_test

import (
	"io"
	"strings"
	"testing"
)

// TestStreamAsItComes holds that a value is sent when it is complete, an answer printed when it comes, and that the end of
// standard input ends the stream.
func TestStreamAsItComes(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"stream", "call"} {
		w := talkWorlds["ok"](t)
		d, _, _ := w.deps(pipe, nil, command, "greeter", "Say.Chat")
		r, stdin := io.Pipe()
		d.Stdin, d.StdinData = r, true
		l := start(t, d)
		write := func(s string) {
			if _, err := io.WriteString(stdin, s); err != nil {
				t.Error(err)
			}
		}
		write(`{"name":"a"}`)
		until(t, l.stdout, "{\"msg\":\"Hello a\"}\n")
		write(` {"name":`)
		write("\n\t\"b\"}{\"name\":\"c\"}")
		until(t, l.stdout, "{\"msg\":\"Hello b\"}\n{\"msg\":\"Hello c\"}\n")
		stdin.Close()
		if code := l.end(t); code != 0 || l.stderr.String() != "" {
			t.Errorf("micro %s: exit %d, %q", command, code, l.stderr)
		}
	}
}

func TestStreamForms(t *testing.T) {
	t.Parallel()
	w := talkWorlds["ok"](t)
	for name, c := range map[string]struct {
		line, stdin    string
		code           int
		stdout, stderr string
	}{
		"first, then stdin": {"stream greeter Say.Chat name=a", `{"name":"b"}`, 0, "{\"msg\":\"Hello a\"}\n{\"msg\":\"Hello b\"}\n", ""},
		"call's body alone": {"call greeter Say.Chat name=a", "", 0, "{\"msg\":\"Hello a\"}\n", ""},
		"nothing":           {"stream greeter Say.Chat", "", 0, "", ""},
		"nothing as JSON":   {"stream greeter Say.Chat -o json", " ", 0, "[]\n", ""},
		"query":             {"stream greeter Say.Chat -q .msg", `{"name":"b"}`, 0, "Hello b\n", ""},
		"one request":       {"stream greeter Say.Count -q .n", `{"times":2} {"times":9}`, 0, "1\n2\n", ""},
		"no request":        {"stream greeter Say.Count", "", 0, "", ""},
		"a call":            {"stream greeter Say.Hello", `{"name":"b"}`, 0, "{\"msg\":\"Hello b\"}\n", ""},
		"yaml":              {"stream greeter Say.Count times=2 -o yaml", "", 0, "---\nn: 1\n---\nn: 2\n", ""},
		"raw":               {"stream greeter Say.Count times=1 -o raw", "", 0, "{\"n\":1}\n", ""},
		"not JSON": {"stream greeter Say.Chat", `{"name":"a"} x`, 2, "{\"msg\":\"Hello a\"}\n",
			"error: message 2 is not JSON: invalid character 'x' looking for beginning of value; it was not sent\n"},
		"too large":    {"stream greeter Say.Chat", `{"name":"a"} "` + strings.Repeat("x", 9<<20) + `"`, 2, "{\"msg\":\"Hello a\"}\n", "error: message 2 is larger than 4 MiB, the most that a message carries; it was not sent\n"},
		"cut off":      {"stream greeter Say.Chat", `{"name":"a"} {`, 2, "{\"msg\":\"Hello a\"}\n", "error: message 2 is not JSON: it is cut off; it was not sent\n"},
		"does not fit": {"stream greeter Say.Chat", `{"name":"a"} {"nme":1}`, 2, "{\"msg\":\"Hello a\"}\n", "error: message 2 does not fit Say.Chat (request); it was not sent\n"},
		"fails":        {"stream greeter Say.Count times=1 name=fail", "", 6, "{\"n\":1}\n", "error: greeter Say.Count: 400 Bad Request: cannot count further\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := w.feed(t, strings.NewReader(c.stdin), pipe, strings.Fields(c.line)...)
			if got.code != c.code || got.stdout != c.stdout || !strings.HasPrefix(got.stderr, c.stderr) || c.stderr == "" && got.stderr != "" {
				t.Errorf("exit %d, want %d\n%q\nwant\n%q\n%s", got.code, c.code, got.stdout, c.stdout, got.stderr)
			}
		})
	}
}

// TestStreamEnds holds that Ctrl-C and the time's end leave whole output behind.
func TestStreamEnds(t *testing.T) {
	t.Parallel()
	w := talkWorlds["ok"](t)
	d, _, _ := w.deps(pipe, nil, "stream", "greeter", "Say.Chat", "-o", "json")
	r, stdin := io.Pipe()
	defer stdin.Close()
	d.Stdin, d.StdinData = r, true
	l := start(t, d)
	if _, err := io.WriteString(stdin, `{"name":"a"}`); err != nil {
		t.Fatal(err)
	}
	until(t, l.stdout, "Hello a")
	if code := l.stop(t); code != 130 || l.stdout.String() != "[\n  {\n    \"msg\": \"Hello a\"\n  }\n]\n" || l.stderr.String() != "" {
		t.Errorf("after Ctrl-C: exit %d, %q, %q", code, l.stdout, l.stderr)
	}
	d.Args = []string{"stream", "greeter", "Say.Chat", "--timeout", "100ms"}
	r, stdin2 := io.Pipe()
	defer stdin2.Close()
	d.Stdin = r
	l = start(t, d)
	if code := l.end(t); code != 5 || !strings.HasPrefix(l.stderr.String(), "error: greeter Say.Chat: the stream did not end within 100ms\n") {
		t.Errorf("after the time: exit %d, %q", code, l.stderr)
	}
}
