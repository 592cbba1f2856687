package cell

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Cell{
		"16/1/1":                {Kind: Call, Payload: 16, Callers: 1, Conns: 1},
		"1k/64/8":               {Kind: Call, Payload: 1 << 10, Callers: 64, Conns: 8},
		"4m/8/1":                {Kind: Call, Payload: 4 << 20, Callers: 8, Conns: 1},
		"1k/64/1@10000":         {Kind: Call, Payload: 1 << 10, Callers: 64, Conns: 1, Rate: 10000},
		"stream:1k/16/1":        {Kind: Stream, Payload: 1 << 10, Callers: 16, Conns: 1},
		"fanout:128/1/16":       {Kind: Fanout, Payload: 128, Callers: 1, Conns: 16},
		"0/1/1":                 {Kind: Call, Callers: 1, Conns: 1},
		"16/2/1+nodes=1000":     {Kind: Call, Payload: 16, Callers: 2, Conns: 1, Nodes: 1000},
		"16/2/1@5+endpoints=10": {Kind: Call, Payload: 16, Callers: 2, Conns: 1, Rate: 5, Endpoints: 10},
	} {
		got, err := Parse(text)
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", text, got, err, want)
		}
		if s := got.String(); s != text {
			t.Errorf("%s: written as %s", text, s)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for text, says := range map[string]string{
		"":                 "payload/callers/connections",
		"1k/64":            "payload/callers/connections",
		"1k/64/1@":         "payload/callers/connections",
		"1x/64/1":          "payload/callers/connections",
		"1k/0/1":           "a caller",
		"1k/1/0":           "a connection",
		"dance:1k/1/1":     "unknown kind",
		"1k/1/1+moons=3":   "unknown size",
		"1k/99999999999/1": "payload/callers/connections",
	} {
		c, err := Parse(text)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: got %+v, %v, want an error that says %q", text, c, err, says)
		}
	}
}

func TestLabel(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"16/1/1":          "16 B, 1 caller",
		"1k/64/1":         "1 KiB, 64 callers, 1 connection",
		"1k/64/1@10000":   "1 KiB, 64 callers, 1 connection, at 10000/s",
		"4m/8/2":          "4 MiB, 8 callers, 2 connections",
		"stream:1k/16/1":  "1 KiB, 16 streams",
		"fanout:128/1/16": "128 B, to 16 subscribers",
		"idle:1k/1/100":   "100 idle connections",
	} {
		c, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Label(); got != want {
			t.Errorf("%s: got %q, want %q", text, got, want)
		}
	}
}
