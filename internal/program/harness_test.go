//go:build unix

package program_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/internal/program"
)

// self gives the options that run this binary in a role.
func self(t testing.TB, role string, args ...string) program.Options {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return program.Options{Path: path, Args: args, Env: []string{"CHILD=" + role}}
}

// script writes an executable shell script.
func script(t testing.TB, lines ...string) string {
	t.Helper()
	return write(t, filepath.Join(t.TempDir(), "handler"), 0o755, "#!/bin/sh\n"+strings.Join(lines, "\n")+"\n")
}

func write(t testing.TB, path string, mode os.FileMode, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// open makes a program that is closed, by force if need be, at the test's end.
func open(t testing.TB, o program.Options) *program.Program {
	t.Helper()
	p, err := program.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = p.Close(ctx)
	})
	return p
}

// eventually polls until ok, and fails the test after some seconds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

// records is a logger's handler that keeps what is logged, each record as "message key=value …".
type records struct{ lines chan string }

func newRecords() *records { return &records{lines: make(chan string, 10000)} }

func logger(r *records) *slog.Logger { return slog.New(r) }

func (r *records) Enabled(context.Context, slog.Level) bool { return true }
func (r *records) WithAttrs([]slog.Attr) slog.Handler       { return r }
func (r *records) WithGroup(string) slog.Handler            { return r }
func (r *records) Handle(_ context.Context, rec slog.Record) error {
	line := rec.Message
	rec.Attrs(func(a slog.Attr) bool {
		line += " " + a.String()
		return true
	})
	select {
	case r.lines <- line:
	default:
	}
	return nil
}

func (r *records) all() (out []string) {
	for {
		select {
		case line := <-r.lines:
			out = append(out, line)
		default:
			return out
		}
	}
}
