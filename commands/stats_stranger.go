package commands

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/cb02dfca/micro/pkg/server"
)

// strangerStats is what a node of go-micro tells of itself, in the names of [server.Stats].
type strangerStats struct {
	Started    *time.Time `json:"started,omitempty"`
	Uptime     float64    `json:"uptime,omitempty"`
	Calls      *uint64    `json:"calls,omitempty"` // nil where it counts none, which looks like zero
	Errors     *uint64    `json:"errors,omitempty"`
	Goroutines int        `json:"goroutines,omitempty"`
	Memory     uint64     `json:"memory,omitempty"`
}

// endOfTime is the year 10000, in seconds since 1970: RFC 3339 has no way to write it.
const endOfTime = 253402300800

// wholeNumber is an integer of go-micro's answer: a number up to v5.13, and a string from then on, as protojson writes 64 bits.
type wholeNumber uint64

// UnmarshalJSON reads either form.
func (n *wholeNumber) UnmarshalJSON(data []byte) error {
	v, err := strconv.ParseUint(strings.Trim(string(data), `"`), 10, 63)
	if err != nil {
		return fmt.Errorf("want a number, got %.40s", data)
	}
	*n = wholeNumber(v)
	return nil
}

// readStats reads the answer of Debug.Stats. told is nil where it is one of this project's; else it is go-micro's StatsResponse, of
// which zero fields are left out: started and timestamp in seconds since 1970, uptime in seconds, memory in bytes, threads, which are
// goroutines, requests and errors. v1 counts no requests; a server that has recorded nothing so far answers with {}.
func readStats(answer json.RawMessage) (s *server.Stats, told *strangerStats, err error) {
	s = new(server.Stats)
	if own := json.Unmarshal(answer, s); own == nil && !s.Started.IsZero() {
		return s, nil, nil
	}
	var theirs struct {
		Started, Uptime, Memory, Threads, Requests, Errors wholeNumber
	}
	if err := json.Unmarshal(answer, &theirs); err != nil {
		return nil, nil, fmt.Errorf("%s answered what cannot be read: %w", server.DebugStats, err)
	}
	s = &server.Stats{Uptime: float64(theirs.Uptime), Calls: uint64(theirs.Requests), Errors: uint64(theirs.Errors), Memory: uint64(theirs.Memory),
		Goroutines: int(theirs.Threads)}
	told = &strangerStats{Uptime: s.Uptime, Memory: s.Memory, Goroutines: s.Goroutines}
	if theirs.Started > 0 && theirs.Started < endOfTime {
		s.Started = time.Unix(int64(theirs.Started), 0).UTC()
		told.Started = &s.Started
	}
	if s.Calls > 0 || s.Errors > 0 {
		told.Calls, told.Errors = &s.Calls, &s.Errors
	}
	return s, told, nil
}
