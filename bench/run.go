package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/cb02dfca/micro/bench/internal/child"
	"github.com/cb02dfca/micro/bench/internal/result"
	"github.com/cb02dfca/micro/bench/internal/worker"
)

// bench measures, and keeps what it measured.
type bench struct {
	programs child.Programs
	steps    []step
	rounds   int
	warm     time.Duration
	window   time.Duration
	keep     io.Writer // lines of JSON
	tell     io.Writer // what is going on
	measured int
}

// measure takes turns: each round goes through the cells, and in each cell through the peers, in another order each time, so
// that whatever else the machine does meets all of them. What one peer cannot do does not stop the others.
func (b *bench) measure(ctx context.Context) error {
	var errs []error
	for round := 1; round <= b.rounds; round++ {
		for _, s := range b.steps {
			if s.once && round > 1 {
				continue
			}
			for i := range s.peers {
				peer := s.peers[(i+round-1)%len(s.peers)]
				if err := b.one(ctx, round, s, peer); err != nil {
					fmt.Fprintln(b.tell, "failed:", err)
					errs = append(errs, err)
				}
				if ctx.Err() != nil {
					return ctx.Err()
				}
			}
		}
	}
	if len(errs) == 0 && len(b.steps) > 0 && b.measured == 0 {
		return fmt.Errorf("nothing was measured: none of the peers has any of the cells, see README.md for who has what")
	}
	return errors.Join(errs...)
}

func (b *bench) one(ctx context.Context, round int, s step, peer contender) error {
	l, err := b.programs.Measure(ctx, peer.program, peer.name, s.cell, b.warm, b.window)
	if errors.Is(err, worker.ErrUnfit) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s in %s: %w", peer.name, s.cell, err)
	}
	b.measured++
	fmt.Fprintf(b.tell, "%2d  %-20s %-13s %s\n", round, s.cell, peer.name, brief(l))
	return result.Write(b.keep, result.Record{Peer: peer.name, Cell: s.cell.String(), Round: round, Load: l})
}

// brief says in a line what was measured.
func brief(l *result.Load) string {
	if l.Ops() == 0 {
		return fmt.Sprintf("server %.1f MiB, from %.1f MiB", float64(l.Server.Usage.RSS)/1024, float64(l.Idle)/1024)
	}
	text := fmt.Sprintf("%8.2f µs CPU %11.0f/s", l.CPU(), l.Rate())
	if p99 := l.Quantile(1); p99 > 0 {
		text += fmt.Sprintf("   p50 %.0f p99 %.0f µs", l.Quantile(0), p99)
	}
	return text + fmt.Sprintf("   allocs %.1f + %.1f", float64(l.Client.Usage.Mallocs)/l.Ops(), float64(l.Server.Usage.Mallocs)/l.Ops())
}

// starts measures how the programs start, each several times by turns.
func (b *bench) starts(ctx context.Context, peers []contender) error {
	const times = 7
	seen := map[string]bool{}
	for range times {
		clear(seen)
		for _, p := range peers {
			if seen[p.program] {
				continue
			}
			seen[p.program] = true
			s, err := b.programs.MeasureStart(ctx, p.program, p.name)
			if err != nil {
				return fmt.Errorf("starting %s: %w", p.name, err)
			}
			if err := result.Write(b.keep, result.Record{Peer: p.program, Start: s}); err != nil {
				return err
			}
		}
	}
	fmt.Fprintf(b.tell, "started %d programs %d times\n", len(seen), times)
	return nil
}

// openResults makes the file that the records go to, and its folder.
func openResults(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("keeping the results: %w", err)
	}
	return os.Create(path)
}
