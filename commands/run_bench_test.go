//go:build unix

package commands_test

import (
	"bytes"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/client"
	registrymemory "github.com/cb02dfca/micro/pkg/registry/memory"
	transporthttp "github.com/cb02dfca/micro/pkg/transport/http"
)

// BenchmarkRun calls /bin/cat through a micro run in a process of its own, by turns with os/exec alone, and reports the
// medians and their difference in microseconds: what a process per request costs beside the process.
func BenchmarkRun(b *testing.B) {
	server := exec.CommandContext(b.Context(), os.Args[0], "-test.run=^TestRunProcess$")
	server.Env = append(os.Environ(), "RUN_PROCESS=run --endpoint Say.Cat -- cat")
	var stderr lockedBuffer
	server.Stderr = &stderr
	if err := server.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		_ = server.Process.Signal(os.Interrupt)
		_ = server.Wait()
	}()
	var at string
	for end := time.Now().Add(10 * time.Second); at == ""; time.Sleep(time.Millisecond) {
		if m := readyAt.FindStringSubmatch(stderr.String()); m != nil {
			at = m[1]
		} else if time.Now().After(end) {
			b.Fatal("not ready:\n" + stderr.String())
		}
	}
	tr, err := transporthttp.New(transporthttp.Options{})
	if err != nil {
		b.Fatal(err)
	}
	c, err := client.New(client.WithTransport(tr), client.WithRegistry(registrymemory.New()))
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()

	body := []byte(`{"name":"` + string(bytes.Repeat([]byte("x"), 1000)) + `"}`)
	var calls, direct []time.Duration
	for b.Loop() {
		start := time.Now()
		if _, err := c.Do(b.Context(), &client.Request{Service: "cat", Endpoint: "Say.Cat", ContentType: "application/json", Body: body}, client.Address(at)); err != nil {
			b.Fatal(err)
		}
		calls = append(calls, time.Since(start))

		start = time.Now()
		cmd := exec.CommandContext(b.Context(), "cat")
		cmd.Stdin = bytes.NewReader(body)
		if out, err := cmd.Output(); err != nil || len(out) != len(body) {
			b.Fatal(err)
		}
		direct = append(direct, time.Since(start))
	}
	median := func(times []time.Duration) float64 {
		slices.Sort(times)
		return float64(times[len(times)/2].Nanoseconds()) / 1e3
	}
	b.ReportMetric(median(calls), "p50-us")
	b.ReportMetric(median(direct), "p50-exec-us")
	b.ReportMetric(median(calls)-median(direct), "overhead-us")
}
