package result

import (
	"math"
	"slices"
)

// Summary is the middle of some figures and how far they spread.
type Summary struct {
	Median, Lower, Upper float64 // Lower and Upper are the quartiles
	N                    int
}

// Summarize sums up figures; those that are no number, such as a ratio to nothing, are left out.
func Summarize(figures []float64) Summary {
	sorted := slices.DeleteFunc(slices.Clone(figures), func(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) })
	slices.Sort(sorted)
	return Summary{Median: quantile(sorted, 0.5), Lower: quantile(sorted, 0.25), Upper: quantile(sorted, 0.75), N: len(sorted)}
}

// quantile interpolates between the two figures that the quantile stands between.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	at := q * float64(len(sorted)-1)
	low := int(at)
	high := min(low+1, len(sorted)-1)
	return sorted[low] + (at-float64(low))*(sorted[high]-sorted[low])
}

// Set has the loads by cell, peer and round.
type Set struct {
	loads  map[key]map[int]*Load
	cells  []string
	peers  []string
	Hosts  []Host
	Starts map[string][]Start
}

type key struct{ cell, peer string }

// Collect makes a Set of records. A file's rounds stand beside the rounds of the others: those of the second file follow on.
func Collect(records []Record) *Set {
	s := &Set{loads: map[key]map[int]*Load{}, Starts: map[string][]Start{}}
	base, highest := 0, 0
	for _, r := range records {
		switch {
		case r.Host != nil:
			s.Hosts = append(s.Hosts, *r.Host)
			base = highest
		case r.Start != nil:
			s.Starts[r.Peer] = append(s.Starts[r.Peer], *r.Start)
		case r.Load != nil:
			s.add(r, base+r.Round)
			highest = max(highest, base+r.Round)
		}
	}
	return s
}

func (s *Set) add(r Record, round int) {
	k := key{r.Cell, r.Peer}
	if s.loads[k] == nil {
		s.loads[k] = map[int]*Load{}
	}
	s.loads[k][round] = r.Load
	if !slices.Contains(s.cells, r.Cell) {
		s.cells = append(s.cells, r.Cell)
	}
	if !slices.Contains(s.peers, r.Peer) {
		s.peers = append(s.peers, r.Peer)
	}
}

// Cells gives the cells in the order in which they were measured first.
func (s *Set) Cells() []string { return s.cells }

// Peers gives the peers likewise.
func (s *Set) Peers() []string { return s.peers }

// Has reports whether the peer was measured in the cell.
func (s *Set) Has(cell, peer string) bool { return len(s.loads[key{cell, peer}]) > 0 }

// Figure is what a table shows of a load.
type Figure func(*Load) float64

// Of sums up a figure over the rounds.
func (s *Set) Of(cell, peer string, f Figure) Summary {
	var all []float64
	for _, l := range s.loads[key{cell, peer}] {
		all = append(all, f(l))
	}
	return Summarize(all)
}

// Ratio sums up how many times a's figure is b's, taken within each round that has both, so that what made the machine slow
// for a while made both slow.
func (s *Set) Ratio(cell, a, b string, f Figure) Summary {
	var all []float64
	for round, la := range s.loads[key{cell, a}] {
		if lb := s.loads[key{cell, b}][round]; lb != nil {
			all = append(all, f(la)/f(lb))
		}
	}
	return Summarize(all)
}

// Limit sums up, within each round, how many times the figure of peer is that of the best of others.
func (s *Set) Limit(cell, peer string, others []string, f Figure) Summary {
	var all []float64
	for round, l := range s.loads[key{cell, peer}] {
		best := math.Inf(1)
		for _, o := range others {
			if lo := s.loads[key{cell, o}][round]; lo != nil {
				best = min(best, f(lo))
			}
		}
		all = append(all, f(l)/best)
	}
	return Summarize(slices.DeleteFunc(all, func(v float64) bool { return v == 0 }))
}
