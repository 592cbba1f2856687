// Package cell names loads: what is sent, by how many callers, over how many connections.
package cell

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Kind is what the callers of a cell do.
type Kind string

// The kinds of load. A Call is there and back; a Stream is messages from the server to each caller; a Fanout is messages
// from Callers publishers to Conns subscribers; Idle is Conns connections on which nothing goes on after one call each.
const (
	Call   Kind = "call"
	Stream Kind = "stream"
	Fanout Kind = "fanout"
	Idle   Kind = "idle"
)

// Cell is one load. Its text is "1k/64/8": payload, callers, connections. Before it stands another kind than a call
// ("stream:1k/16/1"), behind it a fixed rate in calls per second ("1k/64/1@10000") and sizes of what the calls go through
// ("16/64/1+nodes=1000+endpoints=100").
type Cell struct {
	Kind    Kind
	Payload int // bytes
	Callers int // each has one call under way at most
	Conns   int
	// Rate is the calls per second of all callers together, started by the clock; zero is a closed loop: each caller
	// calls again when it has its answer.
	Rate int
	// Nodes is how many nodes the registry has of the service, Endpoints how many endpoints the server; zero is one.
	Nodes, Endpoints int
}

var form = regexp.MustCompile(`^(?:([a-z]+):)?(\d{1,9}[km]?)/(\d{1,9})/(\d{1,9})(?:@(\d{1,9}))?((?:\+[a-z]+=\d{1,9})*)$`)

// Parse reads the text of a cell.
func Parse(text string) (Cell, error) {
	m := form.FindStringSubmatch(text)
	if m == nil {
		return Cell{}, fmt.Errorf(`cell %q: want payload/callers/connections: "1k/64/1" (a payload in bytes, or with k or m), `+
			`"1k/64/1@10000" (calls per second), "stream:1k/16/1" (stream, fanout or idle), "1k/64/1+nodes=100" (nodes or endpoints)`, text)
	}
	c := Cell{Kind: Kind(m[1]), Payload: size(m[2]), Callers: number(m[3]), Conns: number(m[4]), Rate: number(m[5])}
	switch c.Kind {
	case "":
		c.Kind = Call
	case Call, Stream, Fanout, Idle:
	default:
		return Cell{}, fmt.Errorf("cell %q: unknown kind %q: want call, stream, fanout or idle before the colon", text, c.Kind)
	}
	for _, pair := range strings.Split(m[6], "+")[1:] {
		key, value, _ := strings.Cut(pair, "=")
		switch key {
		case "nodes":
			c.Nodes = number(value)
		case "endpoints":
			c.Endpoints = number(value)
		default:
			return Cell{}, fmt.Errorf("cell %q: unknown size %q: want +nodes= or +endpoints=", text, key)
		}
	}
	if c.Callers < 1 || c.Conns < 1 {
		return Cell{}, fmt.Errorf("cell %q: want a caller and a connection at least", text)
	}
	return c, nil
}

func number(s string) int {
	n, _ := strconv.Atoi(s) // a few digits, by form
	return n
}

func size(s string) int {
	switch {
	case strings.HasSuffix(s, "k"):
		return number(s[:len(s)-1]) << 10
	case strings.HasSuffix(s, "m"):
		return number(s[:len(s)-1]) << 20
	}
	return number(s)
}

// String gives the cell's text, as Parse reads it.
func (c Cell) String() string {
	var b strings.Builder
	if c.Kind != Call && c.Kind != "" {
		b.WriteString(string(c.Kind) + ":")
	}
	fmt.Fprintf(&b, "%s/%d/%d", short(c.Payload), c.Callers, c.Conns)
	if c.Rate > 0 {
		fmt.Fprintf(&b, "@%d", c.Rate)
	}
	if c.Nodes > 0 {
		fmt.Fprintf(&b, "+nodes=%d", c.Nodes)
	}
	if c.Endpoints > 0 {
		fmt.Fprintf(&b, "+endpoints=%d", c.Endpoints)
	}
	return b.String()
}

func short(n int) string {
	switch {
	case n > 0 && n%(1<<20) == 0:
		return strconv.Itoa(n>>20) + "m"
	case n > 0 && n%(1<<10) == 0:
		return strconv.Itoa(n>>10) + "k"
	}
	return strconv.Itoa(n)
}

// Label gives the cell in words, for tables: "1 KiB, 64 callers, 1 connection".
func (c Cell) Label() string {
	payload := fmt.Sprintf("%d B", c.Payload)
	switch {
	case c.Payload > 0 && c.Payload%(1<<20) == 0:
		payload = fmt.Sprintf("%d MiB", c.Payload>>20)
	case c.Payload > 0 && c.Payload%(1<<10) == 0:
		payload = fmt.Sprintf("%d KiB", c.Payload>>10)
	}
	switch {
	case c.Kind == Stream:
		return payload + ", " + count(c.Callers, "stream")
	case c.Kind == Fanout:
		return payload + ", to " + count(c.Conns, "subscriber")
	case c.Kind == Idle:
		return count(c.Conns, "idle connection")
	case c.Rate > 0:
		return fmt.Sprintf("%s, %s, %s, at %d/s", payload, count(c.Callers, "caller"), count(c.Conns, "connection"), c.Rate)
	case c.Callers == 1 && c.Conns == 1:
		return payload + ", 1 caller"
	}
	return payload + ", " + count(c.Callers, "caller") + ", " + count(c.Conns, "connection")
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
