package main

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/bench/internal/result"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParseFlags(t *testing.T) {
	t.Parallel()
	s, err := parse([]string{"-cells", "1k/64/1", "-rounds", "3", "-duration", "1s"}, io.Discard)
	if err != nil || s.cells != "1k/64/1" || s.rounds != 3 || s.window != time.Second || s.peers != "all" {
		t.Errorf("got %+v, %v", s, err)
	}
	if s, err = parse([]string{"-short"}, io.Discard); err != nil || s.rounds != 1 || s.window > time.Second || s.peers != "micro,grpc" {
		t.Errorf("-short: got %+v, %v", s, err)
	}
	for _, c := range []struct{ args, says string }{
		{"-render", "result files"},
		{"results.jsonl", "-render"},
		{"-rounds 0", "a round"},
		{"-duration 0s", "more than 0"},
	} {
		if _, err := parse(strings.Fields(c.args), io.Discard); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want an error that says %q", c.args, err, c.says)
		}
	}
}

func TestRunRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ args, says string }{
		{"-peers nobody", "unknown peer"},
		{"-parts nothing", "unknown part"},
		{"-peers nobody", "micro-bare"},
		{"-parts nothing", "fanout"},
		{"-cells 1k", "payload/callers/connections"},
		{"-cells dance:1k/1/1", "stream, fanout or idle"},
		{"-cells 1k/1/1+moons=3", "nodes"},
		{"-profile main.go/x -cells 1k/1/1 -peers raw-pp", "-profile"},
		{"-render missing.jsonl", "missing.jsonl"},
	} {
		s, err := parse(strings.Fields(c.args), io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.run(t.Context(), io.Discard); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want an error that says %q", c.args, err, c.says)
		}
	}
}

// TestPlan: all parts are made of cells and peers that there are, and nothing is measured twice in a round.
func TestPlan(t *testing.T) {
	t.Parallel()
	steps, err := plan("all", contenders)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, s := range steps {
		for _, p := range s.peers {
			what := s.cell.String() + " of " + p.name
			if seen[what] {
				t.Errorf("%s is measured twice", what)
			}
			seen[what] = true
		}
	}
	for _, want := range []string{"1k/64/1 of raw-mux", "fanout:128/1/1 of nats-micro", "fanout:128/1/1000 of micro", "1k/10000/1 of grpc"} {
		if !seen[want] {
			t.Errorf("%s is not measured", want)
		}
	}
	two, err := choose("micro,grpc")
	if err != nil {
		t.Fatal(err)
	}
	steps, err = plan("calls,streams", two)
	if err != nil || len(steps) != 10 || !slices.Equal(steps[0].peers, two) {
		t.Errorf("of two peers: got %+v, %v", steps, err)
	}
}

// TestMeasure measures the limits for a moment, and makes of the results what is made of all.
func TestMeasure(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	doc, kept := filepath.Join(dir, "doc.md"), filepath.Join(dir, "r.jsonl")
	if err := os.WriteFile(doc, []byte("<!-- bench: begin -->\n<!-- bench: end -->\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	run := func(args ...string) error {
		s, err := parse(args, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		return s.run(t.Context(), &out)
	}
	profiles := filepath.Join(dir, "new", "profiles")
	if err := run("-cells", "16/2/1,stream:16/1/1,64k/20/2", "-peers", "raw-mux,raw-pp", "-rounds", "2", "-duration", "50ms", "-warm", "10ms",
		"-out", kept, "-profile", profiles); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if files, err := os.ReadDir(profiles); err != nil || len(files) != 8 { // of two cells, two peers, and both ends
		t.Errorf("%d profiles, %v", len(files), err)
	}
	records, err := result.Read(kept)
	if err != nil {
		t.Fatal(err)
	}
	set := result.Collect(records)
	for _, peer := range []string{"raw-mux", "raw-pp"} {
		for _, cell := range []string{"16/2/1", "64k/20/2"} {
			if cpu := set.Of(cell, peer, (*result.Load).CPU); cpu.N != 2 || cpu.Lower <= 0 {
				t.Errorf("%s in %s: got %+v", peer, cell, cpu)
			}
		}
		if set.Has("stream:16/1/1", peer) {
			t.Errorf("%s has streams", peer)
		}
	}
	if err := run("-render", "-doc", doc, "-charts", dir, kept); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "raw-mux") {
		t.Errorf("the terminal got %q", out.String())
	}
	if err := run("-cells", "16/1/1", "-peers", "raw-pp", "-rounds", "1", "-duration", "20ms", "-gate", "1.15"); err == nil || !strings.Contains(err.Error(), "micro-bare") {
		t.Errorf("a gate over nothing: got %v", err)
	}
	if err := run("-cells", "stream:16/1/1", "-peers", "raw-pp", "-rounds", "1", "-duration", "20ms"); err == nil || !strings.Contains(err.Error(), "nothing was measured") {
		t.Errorf("a cell that the peer has not got: got %v", err)
	}
}
