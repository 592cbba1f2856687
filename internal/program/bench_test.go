//go:build unix

package program_test

import (
	"bytes"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/cb02dfca/micro/internal/program"
)

// BenchmarkOverhead calls a program by turns through Run and by os/exec alone, so that what else the machine does meets
// both. It reports the medians and their difference, in microseconds.
func BenchmarkOverhead(b *testing.B) {
	for name, argv := range map[string][]string{"cat": {"cat"}, "sh": {"sh", "-c", "cat"}} {
		b.Run(name, func(b *testing.B) {
			p, err := program.New(program.Options{Path: argv[0], Args: argv[1:]})
			if err != nil {
				b.Fatal(err)
			}
			defer p.Close(b.Context())
			body := []byte(`{"name":"` + string(bytes.Repeat([]byte("x"), 1000)) + `"}`)
			var ours, direct []time.Duration
			for b.Loop() {
				start := time.Now()
				if _, err := p.Run(b.Context(), program.Request{Endpoint: "Say.Hello", Body: body}); err != nil {
					b.Fatal(err)
				}
				ours = append(ours, time.Since(start))

				start = time.Now()
				cmd := exec.CommandContext(b.Context(), argv[0], argv[1:]...)
				cmd.Stdin = bytes.NewReader(body)
				var out, errs bytes.Buffer
				cmd.Stdout, cmd.Stderr = &out, &errs
				if err := cmd.Run(); err != nil {
					b.Fatal(err)
				}
				direct = append(direct, time.Since(start))
			}
			b.ReportMetric(micros(ours), "p50-us")
			b.ReportMetric(micros(direct), "p50-exec-us")
			b.ReportMetric(micros(ours)-micros(direct), "overhead-us")
		})
	}
}

func micros(times []time.Duration) float64 {
	slices.Sort(times)
	return float64(times[len(times)/2].Nanoseconds()) / 1e3
}
