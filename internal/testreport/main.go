// Command testreport reads the output of `go test -json` and prints what a person wants of it: the whole output of
// what failed, the reason of what was skipped, and the totals in the last line. It exits with 1 where a test failed, or
// was skipped because of the machine: a test that nobody ran. Such a test says so by a reason that begins with SKIPPED.
// Other skips are of what a backend says that it cannot do.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

type report struct {
	passed, failed, skipped, unrun int
	output                         map[string][]string // by package and test, until its result is known
}

func main() {
	r := &report{output: map[string][]string{}}
	if err := r.read(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
		os.Exit(2)
	}
	if r.unrun > 0 {
		fmt.Printf("%d tests could not be run on this machine\n", r.unrun)
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", r.passed, r.failed, r.skipped)
	if r.failed > 0 || r.unrun > 0 || r.passed == 0 {
		os.Exit(1)
	}
}

func (r *report) read(in io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Fprintln(out, lines.Text()) // the go command's own words
			continue
		}
		r.take(e, out)
	}
	return lines.Err()
}

// unfinished prints the output of a package's tests that have no result: the one in which the time ran out, or the
// program ended, is among them.
func (r *report) unfinished(pkg string, out io.Writer) {
	for _, key := range slices.Sorted(maps.Keys(r.output)) {
		if test, ok := strings.CutPrefix(key, pkg+" "); ok && test != "" {
			fmt.Fprintf(out, "NO END  %s\n%s", key, strings.Join(r.output[key], ""))
			delete(r.output, key)
		}
	}
}

// take counts a result. A package counts only where it failed: its tests are counted by themselves.
func (r *report) take(e event, out io.Writer) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output", "build-output":
		r.output[key] = append(r.output[key], e.Output)
		return
	case "pass":
		if e.Test != "" {
			r.passed++
		} else {
			fmt.Fprintf(out, "ok      %s %.1fs\n", e.Package, e.Elapsed)
		}
	case "fail", "build-fail":
		r.failed++
		if e.Test == "" {
			r.unfinished(e.Package, out)
		}
		fmt.Fprintf(out, "FAILED  %s\n%s", key, strings.Join(r.output[key], ""))
	case "skip":
		if e.Test != "" { // a package without tests is "skipped" too
			r.skipped++
			if said := strings.Join(r.output[key], ""); strings.Contains(said, "SKIPPED") {
				r.unrun++
				fmt.Fprintf(out, "SKIPPED %s\n%s", key, said)
			}
		}
	default:
		return
	}
	delete(r.output, key)
}
