package main

import (
	"os"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/cb02dfca/micro/bench/internal/result"
)

// describeHost says where the figures are taken, and with which versions of the peers.
func describeHost(chosen []contender, settings string) result.Host {
	h := result.Host{
		CPU: processor(), Threads: runtime.NumCPU(), Kernel: file("/proc/sys/kernel/osrelease"), Go: runtime.Version(),
		Date: time.Now().UTC().Format(time.DateOnly), LoadAvg: file("/proc/loadavg"), Settings: settings, Versions: map[string]string{},
	}
	required := requirements()
	for _, c := range chosen {
		if v := required[c.module]; v != "" {
			h.Versions[c.module] = v
		}
	}
	return h
}

func file(path string) string {
	b, _ := os.ReadFile(path) // the figures are good without it
	return strings.TrimSpace(string(b))
}

func processor() string {
	m := regexp.MustCompile(`(?m)^model name\s*: (.*)$`).FindStringSubmatch(file("/proc/cpuinfo"))
	if m == nil {
		return runtime.GOARCH
	}
	return m[1]
}

// requirements reads the versions of go.mod: this program does not link the peers itself.
func requirements() map[string]string {
	out := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^\s*(?:require )?(\S+) (v\S+)`).FindAllStringSubmatch(file("go.mod"), -1) {
		out[m[1]] = m[2]
	}
	return out
}
