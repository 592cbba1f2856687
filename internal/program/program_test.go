//go:build unix

package program_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/internal/program"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/status"
)

func TestNew(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name string, mode os.FileMode, text string) string {
		return write(t, filepath.Join(dir, name), mode, text)
	}
	for name, test := range map[string]struct {
		o    program.Options
		want error
		say  string
	}{
		"nothing":              {program.Options{}, program.ErrInvalid, "no program"},
		"not there":            {program.Options{Path: filepath.Join(dir, "none")}, program.ErrNotFound, "none"},
		"not in PATH":          {program.Options{Path: "no-such-program-anywhere"}, program.ErrNotFound, "not in PATH"},
		"not executable":       {program.Options{Path: file("plain", 0o644, "#!/bin/sh\n")}, program.ErrNotExecutable, "plain"},
		"a folder":             {program.Options{Path: dir}, program.ErrNotExecutable, "is a folder"},
		"a device":             {program.Options{Path: os.DevNull}, program.ErrNotExecutable, "no regular file"},
		"empty":                {program.Options{Path: file("empty", 0o755, "")}, program.ErrNotExecutable, "is empty"},
		"no first line":        {program.Options{Path: file("text", 0o755, "echo hi\n")}, program.ErrNotExecutable, "#!/bin/sh"},
		"interpreter missing":  {program.Options{Path: file("lost", 0o755, "#!/no/such/sh\n")}, program.ErrNotFound, "/no/such/sh"},
		"env's is missing":     {program.Options{Path: file("env", 0o755, "#!/usr/bin/env no-such-interpreter\n")}, program.ErrNotFound, "no-such-interpreter"},
		"interpreter unnamed":  {program.Options{Path: file("bang", 0o755, "#!\n")}, program.ErrNotExecutable, "names no interpreter"},
		"line ends of Windows": {program.Options{Path: file("crlf", 0o755, "#!/bin/sh\r\necho\r\n")}, program.ErrNotExecutable, "Windows"},
		"working directory":    {program.Options{Path: "sh", Dir: filepath.Join(dir, "none")}, program.ErrInvalid, "working directory"},
		"directory is a file":  {program.Options{Path: "sh", Dir: file("f", 0o644, "")}, program.ErrInvalid, "no directory"},
		"environment":          {program.Options{Path: "sh", Env: []string{"NAME"}}, program.ErrInvalid, "NAME=value"},
		"reserved environment": {program.Options{Path: "sh", Env: []string{"MICRO_HEADER_X=1"}}, program.ErrInvalid, "MICRO_HEADER_X"},
		"timeout":              {program.Options{Path: "sh", Timeout: -1}, program.ErrInvalid, "timeout"},
		"grace":                {program.Options{Path: "sh", Grace: -1}, program.ErrInvalid, "grace"},
		"limit":                {program.Options{Path: "sh", MaxBody: -1}, program.ErrInvalid, "limit"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := program.New(test.o)
			if err == nil {
				_ = p.Close(t.Context())
			}
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.say) {
				t.Errorf("got %v, want %v that says %q", err, test.want, test.say)
			}
		})
	}
}

func TestNewGate(t *testing.T) {
	t.Parallel()
	for _, n := range [][2]int{{-1, 0}, {program.MaxConcurrency + 1, 0}, {1, -1}} {
		if _, err := program.NewGate(n[0], n[1]); !errors.Is(err, program.ErrInvalid) {
			t.Errorf("NewGate(%d, %d) gave %v", n[0], n[1], err)
		}
	}
}

// TestCurrentFolder is not parallel: it changes PATH and the working directory.
func TestCurrentFolder(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "tool"), 0o755, "#!/bin/sh\n")
	t.Chdir(dir)
	t.Setenv("PATH", ".")
	if _, err := program.Find("tool"); !errors.Is(err, program.ErrNotFound) || !strings.Contains(err.Error(), "./tool") {
		t.Errorf("got %v, want a refusal that names ./tool", err)
	}
	if got, err := program.Find("./tool"); err != nil || !filepath.IsAbs(got) {
		t.Errorf("got %q, %v, want an absolute path", got, err)
	}
	if entries, _, err := program.Scan("."); err != nil || len(entries) != 1 || !filepath.IsAbs(entries[0].Path) {
		t.Errorf("got %v, %v, want an absolute path", entries, err)
	}
}

func TestGoneBetweenCalls(t *testing.T) {
	t.Parallel()
	path := script(t, "echo 1")
	p := open(t, program.Options{Path: path})
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	_, err := p.Run(t.Context(), program.Request{Body: make([]byte, 100_000)})
	wantStatus(t, err, status.Unavailable, "the handler cannot be started", true)
}

// TestEnvironment is not parallel: it sets our own environment.
func TestEnvironment(t *testing.T) {
	t.Setenv("SECRET", "s")
	t.Setenv("MICRO_TOKEN", "s")
	t.Setenv("LC_ALL", "C")
	t.Setenv("TZ", "UTC")
	md := metadata.Of("x-user", "ada", "path", "/evil", "ld-preload", "/evil.so", "http_proxy", "evil",
		"traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	p := open(t, program.Options{Path: script(t, "env"), Env: []string{"TZ=CET", "DB=file:x"}, Service: "greeter", Version: "1.2", Node: "greeter-1"})
	got, err := p.Run(t.Context(), program.Request{
		Endpoint: "Say.Hello", Topic: "t", ID: "r1", Caller: "127.0.0.1:9", ContentType: "application/json", Header: md,
	})
	if err != nil {
		t.Fatal(err)
	}
	env := strings.Split(strings.TrimSpace(string(got.Body)), "\n")
	for _, want := range []string{"LC_ALL=C", "TZ=CET", "DB=file:x", "MICRO_SERVICE=greeter", "MICRO_VERSION=1.2", "MICRO_NODE=greeter-1",
		"MICRO_ENDPOINT=Say.Hello", "MICRO_TOPIC=t", "MICRO_REQUEST_ID=r1", "MICRO_CALLER=127.0.0.1:9", "MICRO_CONTENT_TYPE=application/json",
		"MICRO_HEADER_X_USER=ada", "MICRO_HEADER_PATH=/evil", "MICRO_HEADER_LD_PRELOAD=/evil.so", "MICRO_HEADER_HTTP_PROXY=evil",
		"TRACEPARENT=00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "PATH=" + os.Getenv("PATH")} {
		if !slices.Contains(env, want) {
			t.Errorf("%s is not among\n%s", want, got.Body)
		}
	}
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		switch name {
		case "SECRET", "MICRO_TOKEN", "LD_PRELOAD", "HTTP_PROXY", "http_proxy":
			t.Errorf("%s is there", name)
		case "MICRO_DEADLINE_MS":
			if ms, err := strconv.Atoi(value); err != nil || ms <= 0 || ms > 30_000 {
				t.Errorf("%s, want what is left of 30 s", kv)
			}
		}
	}
}

func TestArgumentsAreFixed(t *testing.T) {
	t.Parallel()
	p := open(t, self(t, "args", "a b", "$HOME", "`id`", "*"))
	got, err := p.Run(t.Context(), program.Request{Endpoint: "$(id)", Body: []byte("$(id)")})
	if err != nil {
		t.Fatal(err)
	}
	if want := `["a b" "$HOME" "` + "`id`" + `" "*"]`; string(got.Body) != want {
		t.Errorf("got %s, want %s", got.Body, want)
	}
}

func TestDir(t *testing.T) {
	t.Parallel()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p := open(t, program.Options{Path: script(t, "pwd"), Dir: dir})
	got, err := p.Run(t.Context(), program.Request{})
	if err != nil || string(got.Body) != dir+"\n" {
		t.Errorf("got %q, %v, want %q", got.Body, err, dir)
	}
}

func TestLog(t *testing.T) {
	t.Parallel()
	r := newRecords()
	p := open(t, program.Options{Path: script(t, `printf 'one\n\n\033[2Jtwo\nthree' >&2`), Logger: logger(r)})
	if _, err := p.Run(t.Context(), program.Request{Endpoint: "Say.Hello", ID: "r1"}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Run(t.Context(), program.Request{Topic: "t", ID: "r2"}); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"one endpoint=Say.Hello request=r1", `\x1b[2Jtwo endpoint=Say.Hello request=r1`, "three endpoint=Say.Hello request=r1",
		"one topic=t request=r2", `\x1b[2Jtwo topic=t request=r2`, "three topic=t request=r2",
	}
	if got := r.all(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestLogFlood: a handler that logs without end is never held up, and what it logs is bounded: also where its lines are
// so short that the most of a log is what stands beside them.
func TestLogFlood(t *testing.T) {
	t.Parallel()
	const cost = 64 // of a line, beside its length
	for name, test := range map[string]struct{ length, all int }{"long lines": {1023, 32 << 10}, "short lines": {5, 1 << 20}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &records{make(chan string, test.all)}
			line, size := strings.Repeat("x", test.length), strconv.Itoa(test.all*(test.length+1))
			p := open(t, program.Options{Path: script(t, `yes `+line+` | head -c `+size+` >&2; echo 1`), Logger: logger(r)})
			start := time.Now()
			got, err := p.Run(t.Context(), program.Request{})
			if err != nil || string(got.Body) != "1" {
				t.Fatalf("got %q, %v", got.Body, err)
			}
			seconds, perSecond := int(time.Since(start)/time.Second)+2, program.LogRate/(test.length+cost)
			if n, limit := len(r.all()), seconds*(perSecond+1)+test.all/100+1; n > limit || n < perSecond {
				t.Errorf("logged %d lines of %d in %d s, want %d to %d", n, test.all, seconds, perSecond, limit)
			}
		})
	}
}

func TestScan(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put := func(name string, mode os.FileMode, text string) { write(t, filepath.Join(dir, name), mode, text) }
	put("Say.Hello", 0o755, "#!/bin/sh\n")
	put("Say.Hello.schema.json", 0o644, `{"request":{"type":"object"},"response":{"type":"string"}}`)
	put("Say.Bye.sh", 0o755, "#!/bin/sh\n")
	put("Say.Bye.schema.json", 0o644, `{"type":"object"}`)
	put("Say.Gone.schema.json", 0o644, `{}`)
	put("README.md", 0o644, "")
	put(".hidden", 0o755, "")
	put("Debug.Info", 0o755, "")
	put("not a name", 0o755, "")
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "Say.Hello"), filepath.Join(dir, "Say.Link")); err != nil {
		t.Fatal(err)
	}
	entries, notes, err := program.Scan(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Endpoint+" "+filepath.Base(e.Path)+" "+string(e.Request)+" "+string(e.Response))
	}
	want := []string{`Say.Bye Say.Bye.sh {"type":"object"} `, `Say.Hello Say.Hello {"type":"object"} {"type":"string"}`, `Say.Link Say.Link  `}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	var noted []string
	for _, n := range notes {
		noted = append(noted, n.File)
	}
	slices.Sort(noted)
	if want := []string{"Debug.Info", "README.md", "Say.Gone.schema.json", "not a name"}; !slices.Equal(noted, want) {
		t.Errorf("noted %q, want %q", noted, want)
	}
}

func TestScanRefuses(t *testing.T) {
	t.Parallel()
	for name, files := range map[string]map[string]string{
		"two files for one endpoint": {"Say.Hello.sh": "#!/bin/sh\n", "Say.Hello.py": "#!/bin/sh\n"},
		"a schema that is no JSON":   {"Say.Hello": "#!/bin/sh\n", "Say.Hello.schema.json": "{"},
		"a schema that is no object": {"Say.Hello": "#!/bin/sh\n", "Say.Hello.schema.json": `{"request":[]}`},
		"a schema that is too long":  {"Say.Hello": "#!/bin/sh\n", "Say.Hello.schema.json": strings.Repeat(" ", 1<<20+1)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for name, text := range files {
				write(t, filepath.Join(dir, name), 0o755, text)
			}
			if _, _, err := program.Scan(dir); !errors.Is(err, program.ErrInvalid) {
				t.Errorf("got %v, want ErrInvalid", err)
			}
		})
	}
	if _, _, err := program.Scan(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want that there is no folder", err)
	}
}

func TestEndpointOf(t *testing.T) {
	t.Parallel()
	for file, want := range map[string]string{
		"Say.Hello": "Say.Hello", "Say.Hello.sh": "Say.Hello", "Say.Hello.PY": "Say.Hello", "hello": "hello", "hello.sh": "hello",
		"Say.hello": "Say.hello", "a.tar.gz": "a.tar.gz", "Data.Out": "Data.Out", "Data.out": "Data", "plot.R": "plot",
	} {
		if got := program.EndpointOf(file); got != want {
			t.Errorf("EndpointOf(%q) = %q, want %q", file, got, want)
		}
	}
}
