package result

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/cb02dfca/micro/bench/internal/worker"
)

func TestSummarize(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		in   []float64
		want Summary
	}{
		{"one", []float64{3}, Summary{3, 3, 3, 1}},
		{"odd, unsorted", []float64{5, 1, 3, 2, 4}, Summary{3, 2, 4, 5}},
		{"even", []float64{1, 2, 3, 4}, Summary{2.5, 1.75, 3.25, 4}},
		{"what is no number", []float64{math.NaN(), 2, math.Inf(1)}, Summary{2, 2, 2, 1}},
	} {
		if got := Summarize(c.in); got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
	if got := Summarize(nil); got.N != 0 || !math.IsNaN(got.Median) {
		t.Errorf("none: got %+v", got)
	}
}

// load is a second in which ops took so many µs of CPU each, evenly on both sides.
func load(ops int64, cpu float64) *Load {
	u := worker.Usage{CPU: cpu * float64(ops) / 2}
	return &Load{Client: worker.Sample{Seconds: 1, Ops: ops, Usage: u}, Server: worker.Sample{Seconds: 1, Usage: u}}
}

// TestRatioIsWithinARound: a machine that was slow in one round was so for both peers, and the ratio does not move.
func TestRatioIsWithinARound(t *testing.T) {
	t.Parallel()
	s := Collect([]Record{
		{Peer: "a", Cell: "c", Round: 1, Load: load(10, 40)}, {Peer: "b", Cell: "c", Round: 1, Load: load(10, 4)},
		{Peer: "a", Cell: "c", Round: 2, Load: load(10, 400)}, {Peer: "b", Cell: "c", Round: 2, Load: load(10, 40)},
		{Peer: "a", Cell: "c", Round: 3, Load: load(10, 1)}, // b failed
	})
	if got := s.Ratio("c", "a", "b", (*Load).CPU); got != (Summary{10, 10, 10, 2}) {
		t.Errorf("got %+v", got)
	}
	if got := s.Ratio("c", "a", "nobody", (*Load).CPU); got.N != 0 {
		t.Errorf("with nobody: got %+v", got)
	}
	if got := s.Of("c", "a", (*Load).CPU); got.Median != 40 || got.N != 3 {
		t.Errorf("median: got %+v", got)
	}
}

func TestLimitIsTheBetterOfTheRound(t *testing.T) {
	t.Parallel()
	s := Collect([]Record{
		{Peer: "us", Cell: "c", Round: 1, Load: load(1, 12)}, {Peer: "x", Cell: "c", Round: 1, Load: load(1, 10)}, {Peer: "y", Cell: "c", Round: 1, Load: load(1, 20)},
		{Peer: "us", Cell: "c", Round: 2, Load: load(1, 12)}, {Peer: "x", Cell: "c", Round: 2, Load: load(1, 20)}, {Peer: "y", Cell: "c", Round: 2, Load: load(1, 10)},
		{Peer: "us", Cell: "c", Round: 3, Load: load(1, 99)}, // no limit in this round
	})
	if got := s.Limit("c", "us", []string{"x", "y"}, (*Load).CPU); math.Abs(got.Median-1.2) > 1e-9 || got.N != 2 {
		t.Errorf("got %+v", got)
	}
}

func TestDeliveriesCount(t *testing.T) {
	t.Parallel()
	l := load(2, 10) // two batches
	l.Server.Delivered, l.Server.Seconds = 2000, 2
	if l.Ops() != 2000 || l.Rate() != 1000 || l.CPU() != 0.01 {
		t.Errorf("got %v deliveries, %v a second, %v µs", l.Ops(), l.Rate(), l.CPU())
	}
}

func TestFilesAreReadBack(t *testing.T) {
	t.Parallel()
	in := []Record{
		{Host: &Host{CPU: "one", Versions: map[string]string{"m": "v1"}}},
		{Peer: "a", Cell: "c", Round: 1, Load: load(3, 7)},
		{Peer: "a", Start: &Start{Listening: 4, RSS: 5, Size: 6}},
	}
	var text bytes.Buffer
	if err := Write(&text, in...); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "r.jsonl")
	if err := os.WriteFile(path, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := Read(path, path)
	if err != nil || !reflect.DeepEqual(out, append(in, in...)) {
		t.Fatalf("got %+v, %v", out, err)
	}
	if n := Collect(out).Of("c", "a", (*Load).CPU).N; n != 2 {
		t.Errorf("the rounds of two files: got %d, want each by itself", n)
	}
	if err := os.WriteFile(path, []byte("{}\n{no\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("a broken file: got %v", err)
	}
}
