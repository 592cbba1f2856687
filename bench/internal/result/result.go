// Package result is what the bench keeps: a line of JSON for each measurement, and what is computed from many.
package result

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cb02dfca/micro/bench/internal/worker"
)

// Record is one measurement of one peer. Exactly one of Host, Load and Start is set.
type Record struct {
	Host  *Host  `json:"host,omitempty"`
	Peer  string `json:"peer,omitempty"`
	Cell  string `json:"cell,omitempty"`
	Round int    `json:"round,omitempty"`

	Load  *Load  `json:"load,omitempty"`
	Start *Start `json:"start,omitempty"`
}

// Host says where and when the records below it were taken.
type Host struct {
	CPU      string            `json:"cpu"`
	Threads  int               `json:"threads"`
	Kernel   string            `json:"kernel"`
	Go       string            `json:"go"`
	Date     string            `json:"date"`
	LoadAvg  string            `json:"load"`
	Versions map[string]string `json:"versions"` // of the peers' modules
	Settings string            `json:"settings"` // rounds and durations, in words
}

// Load is a cell's measurement.
type Load struct {
	Client worker.Sample `json:"client"`
	Server worker.Sample `json:"server"`
	// Idle is what the server had resident before the client came, in KiB.
	Idle int `json:"idle"`
}

// Start is a server's start.
type Start struct {
	Listening float64 `json:"listening"` // from before fork until its address was read, ms
	RSS       int     `json:"rss"`       // after a second of rest, KiB
	Size      int64   `json:"size"`      // of the program, bytes
}

// Ops is what was done: messages that subscribers got, or a client's operations.
func (l *Load) Ops() float64 {
	if l.Server.Delivered > 0 {
		return float64(l.Server.Delivered)
	}
	return float64(l.Client.Ops)
}

// CPU is µs of both processes for an operation.
func (l *Load) CPU() float64 { return (l.Client.Usage.CPU + l.Server.Usage.CPU) / l.Ops() }

// Rate is operations in a second.
func (l *Load) Rate() float64 {
	if l.Server.Delivered > 0 {
		return l.Ops() / l.Server.Seconds
	}
	return l.Ops() / l.Client.Seconds
}

// Quantile is the i-th of p50, p99 and p999 in µs; zero where calls were not timed.
func (l *Load) Quantile(i int) float64 {
	if i >= len(l.Client.Quantiles) {
		return 0
	}
	return l.Client.Quantiles[i]
}

// Write appends records as lines.
func Write(w io.Writer, records ...Record) error {
	enc := json.NewEncoder(w)
	for _, r := range records {
		if err := enc.Encode(r); err != nil {
			return err
		}
	}
	return nil
}

// Read reads the records of files.
func Read(paths ...string) ([]Record, error) {
	var out []Record
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		records, err := decode(f)
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		out = append(out, records...)
	}
	return out, nil
}

func decode(r io.Reader) (out []Record, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		var rec Record
		if err := json.Unmarshal(lines.Bytes(), &rec); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		out = append(out, rec)
	}
	return out, lines.Err()
}
