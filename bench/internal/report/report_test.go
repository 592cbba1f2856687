package report

import (
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cb02dfca/micro/bench/internal/result"
	"github.com/cb02dfca/micro/bench/internal/worker"
)

var update = flag.Bool("update", false, "write the golden files anew")

func load(ops int64, cpu float64) *result.Load {
	u := worker.Usage{CPU: cpu * float64(ops) / 2, Mallocs: uint64(ops) * 3, RSS: 20480, PeakRSS: 30720}
	return &result.Load{
		Client: worker.Sample{Seconds: 2, Ops: ops, Usage: u, Quantiles: []float64{cpu * 2, cpu * 9, cpu * 30}},
		Server: worker.Sample{Seconds: 2, Usage: u}, Idle: 10240,
	}
}

// sample has three rounds of everything that a table is of.
func sample() *result.Set {
	records := []result.Record{{Host: &result.Host{
		CPU: "a CPU", Threads: 2, Kernel: "6", Go: "go1", Date: "2026-01-02", LoadAvg: "0.10 0.20 0.30 1/2 3", Settings: "3 rounds, 2s each after 1s",
		Versions: map[string]string{"google.golang.org/grpc": "v1.2.3"},
	}}}
	costs := map[string]float64{"raw-mux": 2, "raw-pp": 16, "micro": 3, "micro-bare": 2.8, "grpc": 45}
	for round := 1; round <= 3; round++ {
		slow := 1 + float64(round)/10
		for _, cell := range []string{"16/1/1", "1k/64/1", "1k/64/1@10000", "1k/10/1", "1k/100/1", "1k/1000/1"} {
			for _, peer := range []string{"raw-mux", "raw-pp", "micro", "micro-bare", "grpc"} {
				if strings.Contains(cell, "00/1") && peer != "micro" && peer != "grpc" {
					continue // curves are of two
				}
				records = append(records, result.Record{Peer: peer, Cell: cell, Round: round, Load: load(1000, costs[peer]*slow)})
			}
		}
		for _, cell := range []string{"stream:1k/16/1", "idle:1k/1/100"} {
			records = append(records, result.Record{Peer: "micro", Cell: cell, Round: round, Load: load(1_000_000, 1.5*slow)})
		}
		fan := load(100, 300*slow)
		fan.Server.Delivered = 100_000
		records = append(records, result.Record{Peer: "micro", Cell: "fanout:128/1/16", Round: round, Load: fan})
		records = append(records, result.Record{Peer: "grpc", Start: &result.Start{Listening: 5, RSS: 12288, Size: 10_900_000}})
	}
	return result.Collect(records)
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(path, []byte(got), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not what it was; if that is right: go test ./internal/report -update\n%s", path, got)
	}
}

func TestMarkdown(t *testing.T) {
	t.Parallel()
	golden(t, "tables.txt", Markdown(sample(), "bench"))
}

func TestTerminal(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	if err := Terminal(&b, sample()); err != nil {
		t.Fatal(err)
	}
	golden(t, "terminal.txt", b.String())
}

func TestDocument(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "doc.md")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("before\n" + beginMark + "\nold\n" + endMark + "\nafter\n")
	for range 2 { // the second writes the same
		if err := Document(path, filepath.Join(filepath.Dir(path), "charts"), sample()); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := "before\n" + beginMark + "\n\n" + Markdown(sample(), "charts") + "\n" + endMark + "\nafter\n"
	if string(got) != want {
		t.Errorf("got\n%s", got)
	}
	write("no marks\n")
	if err := Document(path, "", sample()); err == nil || !strings.Contains(err.Error(), beginMark) {
		t.Errorf("without marks: got %v", err)
	}
}

// TestCharts looks that every chart is XML, names what it shows, and has no number that is none.
func TestCharts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := Charts(dir, sample()); err != nil {
		t.Fatal(err)
	}
	for name, has := range map[string][]string{
		"bars-1k-64-1.svg":          {"1 KiB, 64 callers, 1 connection", "raw-mux", "grpc", "busy", "3.60 (15.0×)"},
		"bars-16-1-1.svg":           {"single caller"},
		"bars-1k-64-1-at-10000.svg": {"fixed rate"},
		"bars-stream-1k-16-1.svg":   {"16 streams"},
		"curve-callers.svg":         {"1,000", "micro", "grpc"},
	} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
			continue
		}
		for _, want := range has {
			if !strings.Contains(string(text), want) {
				t.Errorf("%s does not have %q", name, want)
			}
		}
		if strings.Contains(string(text), "NaN") || strings.Contains(string(text), "Inf") {
			t.Errorf("%s has a number that is none:\n%s", name, text)
		}
		for d := xml.NewDecoder(strings.NewReader(string(text))); ; {
			if _, err := d.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Errorf("%s: %v", name, err)
				break
			}
		}
	}
}

func TestNothingMeasured(t *testing.T) {
	t.Parallel()
	empty := result.Collect(nil)
	if got := Markdown(empty, ""); strings.TrimSpace(got) != "" {
		t.Errorf("got %q", got)
	}
	if err := Charts(t.TempDir(), empty); err != nil {
		t.Error(err)
	}
}

func TestFigure(t *testing.T) {
	t.Parallel()
	for v, want := range map[float64]string{
		0: "0.00", 1.234: "1.23", 12.34: "12.3", 123.4: "123", 1234.4: "1,234", 1234567: "1,234,567", -2.5: "-2.50", math.Inf(1): "–",
	} {
		if got := figure(v); got != want {
			t.Errorf("%v: got %s, want %s", v, got, want)
		}
	}
	if got := figure(math.NaN()); got != "–" {
		t.Errorf("no number: got %s", got)
	}
}
