// Package report makes tables and charts of what the bench has kept.
package report

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/cb02dfca/micro/bench/internal/result"
)

// Terminal writes what was measured, a table a cell: the median, its quartiles, and how many times the first of the peers
// that are there costs, of gRPC-Go and of the better limit.
func Terminal(w io.Writer, s *result.Set) error {
	for _, cell := range s.Cells() {
		if strings.HasPrefix(cell, "idle:") {
			continue // nothing goes on in it
		}
		fmt.Fprintf(w, "%s\n", cell)
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "  peer\tµs CPU\tquartiles\tclient\tserver\tper second\tp50\tp99\tp999\tallocs\tbelow grpc\tof limit\tn")
		for _, peer := range s.Peers() {
			if !s.Has(cell, peer) {
				continue
			}
			cpu := s.Of(cell, peer, (*result.Load).CPU)
			of := func(f result.Figure) float64 { return s.Of(cell, peer, f).Median }
			fmt.Fprintf(t, "  %s\t%.2f\t%.2f-%.2f\t%.2f\t%.2f\t%.0f\t%.0f\t%.0f\t%.0f\t%.1f+%.1f\t%s\t%s\t%d\n", peer,
				cpu.Median, cpu.Lower, cpu.Upper, of(clientCPU), of(serverCPU), of((*result.Load).Rate),
				of(quantile(0)), of(quantile(1)), of(quantile(2)), of(clientMallocs), of(serverMallocs),
				times(s.Ratio(cell, baseline, peer, (*result.Load).CPU)), times(s.Limit(cell, peer, limits, (*result.Load).CPU)), cpu.N)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// baseline is what the others are compared with, limits what nobody can be cheaper than.
const baseline = "grpc"

var limits = []string{"raw-mux", "raw-pp"}

func clientCPU(l *result.Load) float64     { return l.Client.Usage.CPU / l.Ops() }
func serverCPU(l *result.Load) float64     { return l.Server.Usage.CPU / l.Ops() }
func clientMallocs(l *result.Load) float64 { return float64(l.Client.Usage.Mallocs) / l.Ops() }
func serverMallocs(l *result.Load) float64 { return float64(l.Server.Usage.Mallocs) / l.Ops() }

func quantile(i int) result.Figure { return func(l *result.Load) float64 { return l.Quantile(i) } }

// times gives a ratio with its lower quartile, or nothing.
func times(s result.Summary) string {
	if s.N == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f (%.2f)", s.Median, s.Lower)
}
