// Command bench measures this project beside its peers and beside the limits of the machine.
//
// Server and client of each measurement are processes of their own, built from bench/peers. See README.md for what is
// measured and how, and -h for the flags.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/cb02dfca/micro/bench/internal/child"
	"github.com/cb02dfca/micro/bench/internal/report"
	"github.com/cb02dfca/micro/bench/internal/result"
)

// settings is what the flags say.
type settings struct {
	cells, peers, parts string
	rounds              int
	window, warm        time.Duration
	out, doc, charts    string
	render              bool
	short               bool
	gate                float64
	profiles            string
	files               []string // to render
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	s, err := parse(os.Args[1:], os.Stderr)
	if err == nil {
		err = s.run(ctx, os.Stdout)
	}
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// parse reads the command line.
func parse(args []string, usage io.Writer) (*settings, error) {
	s := new(settings)
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(usage)
	f.StringVar(&s.parts, "parts", "all", "what to measure: all, or some of "+partNames()+",start")
	f.StringVar(&s.cells, "cells", "", `cells to measure in place of -parts: payload/callers/connections[@calls per second], as in "1k/64/1,1k/64/1@10000,stream:1k/16/1"`)
	f.StringVar(&s.peers, "peers", "all", "who: all, or some of "+known())
	f.IntVar(&s.rounds, "rounds", 7, "how often each is measured, by turns")
	f.DurationVar(&s.window, "duration", 2*time.Second, "how long a measurement is")
	f.DurationVar(&s.warm, "warm", 500*time.Millisecond, "how long clients call before it")
	f.StringVar(&s.out, "out", "", "file for the raw results, lines of JSON (default results/DATE.jsonl; with -cells a temporary one)")
	f.StringVar(&s.doc, "doc", "", "write the tables into this file, between its lines <!-- bench: begin --> and <!-- bench: end -->")
	f.StringVar(&s.charts, "charts", "", "write the charts, SVG, into this folder; -doc then shows them")
	f.BoolVar(&s.render, "render", false, "measure nothing: make tables and charts of the result files that are given as arguments")
	f.BoolVar(&s.short, "short", false, "a few seconds: each cell of micro and grpc once, very briefly, to see that all of it works")
	f.Float64Var(&s.gate, "gate", 0, "fail where micro takes more than this times the CPU of micro-bare: 1.15 is the project's limit")
	f.StringVar(&s.profiles, "profile", "", "write the CPU profile of each process into this folder, which is made where it is missing; that of the last round")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	s.files = f.Args()
	switch {
	case s.render && len(s.files) == 0:
		return nil, fmt.Errorf("-render: give the result files, such as results/*.jsonl")
	case !s.render && len(s.files) > 0:
		return nil, fmt.Errorf("unexpected %q: result files are for -render", s.files[0])
	case s.rounds < 1 || s.window <= 0 || s.warm < 0:
		return nil, fmt.Errorf("want a round, and a duration of more than 0")
	}
	if s.short {
		s.rounds, s.window, s.warm = 1, 200*time.Millisecond, 50*time.Millisecond
		s.peers = "micro,grpc"
	}
	return s, nil
}

func (s *settings) run(ctx context.Context, out io.Writer) error {
	if s.render {
		return s.publish(out, s.files)
	}
	chosen, err := choose(s.peers)
	if err != nil {
		return err
	}
	steps, err := s.steps(chosen)
	if err != nil {
		return err
	}
	if s.profiles != "" {
		if err := os.MkdirAll(s.profiles, 0o755); err != nil {
			return fmt.Errorf("-profile: %w", err)
		}
	}
	temp, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	path := s.resultPath(temp)
	keep, err := openResults(path)
	if err != nil {
		return err
	}
	defer keep.Close()
	b := &bench{steps: steps, rounds: s.rounds, warm: s.warm, window: s.window, keep: keep, tell: out}
	if b.programs, err = child.Build(ctx, temp, programs(chosen)); err != nil {
		return err
	}
	b.programs.Profiles = s.profiles
	failed := s.measure(ctx, b, chosen) // what was measured all the same is told
	if err := s.publish(out, []string{path}); err != nil {
		return errors.Join(failed, err)
	}
	return errors.Join(failed, s.check(path))
}

// measure measures what was asked for.
func (s *settings) measure(ctx context.Context, b *bench, chosen []contender) error {
	host := describeHost(chosen, fmt.Sprintf("%d rounds, %v each after %v", s.rounds, s.window, s.warm))
	if err := result.Write(b.keep, result.Record{Host: &host}); err != nil {
		return err
	}
	err := b.measure(ctx)
	if s.wants("start") && ctx.Err() == nil {
		err = errors.Join(err, b.starts(ctx, chosen))
	}
	return err
}

// wants reports whether a part that has no cells is to be measured.
func (s *settings) wants(part string) bool {
	return s.cells == "" && !s.short && (s.parts == "all" || slices.Contains(strings.Split(s.parts, ","), part))
}

func (s *settings) steps(chosen []contender) ([]step, error) {
	switch {
	case s.cells != "":
		return stepsOf(strings.Split(s.cells, ","), chosen, false)
	case s.short:
		return plan("calls,streams,fanout", chosen)
	}
	return plan(s.parts, chosen)
}

func (s *settings) resultPath(temp string) string {
	switch {
	case s.out != "":
		return s.out
	case s.cells != "" || s.short:
		return filepath.Join(temp, "results.jsonl")
	}
	return filepath.Join("results", time.Now().UTC().Format("2006-01-02T150405")+".jsonl")
}

// publish makes tables and charts of result files.
func (s *settings) publish(out io.Writer, files []string) error {
	records, err := result.Read(files...)
	if err != nil {
		return err
	}
	set := result.Collect(records)
	fmt.Fprintln(out)
	if err := report.Terminal(out, set); err != nil {
		return err
	}
	if s.doc != "" {
		if err := report.Document(s.doc, s.charts, set); err != nil {
			return err
		}
	}
	if s.charts != "" {
		return report.Charts(s.charts, set)
	}
	return nil
}

// check fails where a whole call costs too much more than the bare one.
func (s *settings) check(path string) error {
	if s.gate == 0 {
		return nil
	}
	records, err := result.Read(path)
	if err != nil {
		return err
	}
	set, seen := result.Collect(records), false
	for _, c := range set.Cells() {
		if !set.Has(c, "micro") || !set.Has(c, "micro-bare") {
			continue
		}
		seen = true
		if r := set.Ratio(c, "micro", "micro-bare", (*result.Load).CPU); r.Median > s.gate {
			return fmt.Errorf("in %s a whole call costs %.2f times the bare one (quartiles %.2f and %.2f), the limit is %.2f", c, r.Median, r.Lower, r.Upper, s.gate)
		}
	}
	if !seen {
		return fmt.Errorf("-gate: no cell has both micro and micro-bare")
	}
	return nil
}
