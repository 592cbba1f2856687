package worker

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
)

// Usage is what a process has taken: since its start, or between two looks.
type Usage struct {
	CPU     float64 `json:"cpu"`     // user and system time, µs
	Mallocs uint64  `json:"mallocs"` // objects allocated
	RSS     int     `json:"rss"`     // resident now, KiB
	PeakRSS int     `json:"peak"`    // most ever resident, KiB
}

// Since gives what was taken since an earlier look. RSS and PeakRSS stay those of now.
func (u Usage) Since(earlier Usage) Usage {
	u.CPU -= earlier.CPU
	u.Mallocs -= earlier.Mallocs
	return u
}

// needFiles sees to it that this process may have n connections, beside what else it has open.
func needFiles(n int) error {
	var limit syscall.Rlimit
	need := uint64(n + 200)
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur >= need {
		return err
	}
	limit = syscall.Rlimit{Cur: need, Max: max(limit.Max, need)}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("%d open files are needed, and the limit cannot be raised to that (ulimit -Hn): %w", need, err)
	}
	return nil
}

// look reads what this process has taken. Reading the allocations stops the world for a moment, so it comes first where a
// window begins and last where it ends.
func look(begin bool) (Usage, error) {
	var u Usage
	if begin {
		u.Mallocs = mallocs()
	}
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return u, fmt.Errorf("getrusage: %w", err)
	}
	u.CPU = microseconds(r.Utime) + microseconds(r.Stime)
	if !begin {
		u.Mallocs = mallocs()
	}
	// getrusage's own peak is not used: a process inherits it from who started it.
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return u, err
	}
	u.RSS, u.PeakRSS = kib(status, "VmRSS:"), kib(status, "VmHWM:")
	return u, nil
}

// Resident is what a process has resident, in KiB.
func Resident(pid int) (int, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	return kib(status, "VmRSS:"), err
}

func microseconds(t syscall.Timeval) float64 { return float64(t.Sec)*1e6 + float64(t.Usec) }

func mallocs() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs
}

// kib finds a line such as "VmRSS:	  1234 kB".
func kib(status []byte, key string) int {
	_, rest, _ := bytes.Cut(status, []byte(key))
	fields := bytes.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	n, _ := strconv.Atoi(string(fields[0]))
	return n
}
