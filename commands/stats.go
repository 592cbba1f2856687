package commands

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
)

func newStats() *command {
	return &command{
		name: "stats", group: "Discover", args: "[SERVICE | grpc://HOST:PORT]", short: "show what each node has done: calls, errors, latencies", max: 1,
		long: "Counts are since the node's start; latencies are milliseconds of recent calls.",
		examples: []string{
			"micro stats greeter",
			"micro stats greeter --watch  # again every two seconds",
			"micro stats greeter -q '.[].calls'",
		},
		flags: []cli.Flag{
			&cli.StringFlag{Name: "node", Usage: "only the node with this `ID`"},
			&cli.BoolFlag{Name: "watch", Aliases: []string{"w"}, Usage: "go on, until Ctrl-C"},
			&cli.DurationFlag{Name: "interval", Usage: "with --watch, the time `D` between two looks", Value: 2 * time.Second},
		},
		exits: []exitCode{exitNotFound, exitUnavailable, exitTimeout, exitPartly},
		run:   runStats,
	}
}

// statsValue is the JSON form of a node's stats.
type statsValue struct {
	Node    string `json:"node"`
	Service string `json:"service"`
	Version string `json:"version,omitempty"`
	Address string `json:"address"`
	Error   string `json:"error,omitempty"` // why the node told nothing; the counts are then absent
	*server.Stats
	told *strangerStats // where the node is go-micro's: Stats has the same
}

// MarshalJSON leaves out what a node of go-micro does not tell.
func (v statsValue) MarshalJSON() ([]byte, error) {
	if v.told != nil {
		return json.Marshal(struct {
			Node    string `json:"node"`
			Service string `json:"service"`
			Version string `json:"version,omitempty"`
			Address string `json:"address"`
			*strangerStats
		}{v.Node, v.Service, v.Version, v.Address, v.told})
	}
	type plain statsValue
	return json.Marshal(plain(v))
}

func runStats(ctx context.Context, in *invocation) error {
	if !in.flags.Bool("watch") {
		ctx, cancel := in.deadline(ctx)
		defer cancel()
		values, missing, err := in.statsRound(ctx)
		if err != nil {
			return err
		}
		if missing > 0 && missing == len(values) {
			return noStats(values)
		}
		in.warnMissing(values)
		if err := in.print(ctx, result{value: values, table: statsTable(values), names: statsNames(values)}); err != nil {
			return err
		}
		if missing > 0 {
			return exit(exitPartly)
		}
		return nil
	}
	return in.watchStats(ctx)
}

// watchStats prints the stats again and again, until ctx ends.
func (in *invocation) watchStats(ctx context.Context) error {
	ctx, stop := in.whileRead(ctx)
	defer stop()
	out := in.out.stream(statsTable(nil).heads)
	interval := max(in.flags.Duration("interval"), 100*time.Millisecond)
	for {
		values, _, err := in.statsRoundWithin(ctx)
		if err == nil {
			err = out.item(ctx, result{value: values, table: statsTable(values), names: statsNames(values)})
		}
		switch {
		case interrupted(ctx):
			return unlessUnread(ctx, out.close())
		case err != nil:
			return unlessUnread(ctx, err)
		}
		select {
		case <-ctx.Done():
			return unlessUnread(ctx, out.close())
		case <-time.After(interval):
		}
	}
}

// noStats is the failure of a question that no node answered.
func noStats(values []statsValue) *failure {
	f := fail(exitUnavailable, "no node answered (%d asked)", len(values))
	for _, v := range values {
		f = f.line("%s %s  %s", v.Node, v.Address, v.Error)
	}
	return f.hint("how they are", "micro list nodes --health")
}

// warnMissing names the nodes that did not answer.
func (in *invocation) warnMissing(values []statsValue) {
	for _, v := range values {
		if v.Error != "" {
			in.warn("warning: node %s %s did not answer: %s", v.Node, v.Address, v.Error)
		}
	}
}

func (in *invocation) statsRoundWithin(ctx context.Context) ([]statsValue, int, error) {
	ctx, cancel := in.deadline(ctx)
	defer cancel()
	return in.statsRound(ctx)
}

// statsRound asks each node; missing counts those that told nothing.
func (in *invocation) statsRound(ctx context.Context) (values []statsValue, missing int, err error) {
	if n, ok, err := in.targetNode(ctx); err != nil {
		return nil, 0, err
	} else if ok {
		return in.targetStats(ctx, n)
	}
	nodes, err := in.chosenNodes(ctx, in.flags.String("node"))
	if err != nil {
		return nil, 0, err
	}
	c, err := in.dialer(ctx)
	if err != nil {
		return nil, 0, err
	}
	values = make([]statsValue, len(nodes))
	each(nodes, func(i int, n registry.Node) { values[i] = in.statsOf(ctx, c, n) })
	for _, v := range values {
		if v.Error != "" {
			missing++
		}
	}
	if len(nodes) == 0 {
		in.note("no services found (registry %s)", in.registryShown())
	}
	return values, missing, nil
}

// targetStats asks a server of gRPC, which tells if it is one of this project.
func (in *invocation) targetStats(ctx context.Context, n registry.Node) ([]statsValue, int, error) {
	if n.Service != "" {
		return nil, 0, usage("%s tells of all its services together: leave %q out", n.Address, n.Service)
	}
	v := in.statsOf(ctx, in.dial, n)
	switch {
	case v.Error == noDebugStats:
		return nil, 0, fail(exitNotFound, "%s has no statistics: gRPC has no service for them, and it is none of this project, which has %s", n.Address, server.DebugStats).
			hint("how it is", "micro health "+n.Address)
	case v.Error != "":
		return nil, 0, fail(exitUnavailable, "%s is not answering: %s", n.Address, v.Error)
	}
	return []statsValue{v}, 0, nil
}

// noDebugStats is said of a node that has no statistics.
const noDebugStats = "it has no " + server.DebugStats

func (in *invocation) statsOf(ctx context.Context, c *client.Client, n registry.Node) statsValue {
	v := statsValue{Node: n.ID, Service: n.Service, Version: n.Version, Address: n.Address}
	var answer json.RawMessage
	_, err := in.ask(ctx, c, n, server.DebugStats, &answer)
	if err == nil {
		v.Stats, v.told, err = readStats(answer)
	}
	var st *status.Error
	switch {
	case errors.As(err, &st) && lacking(st):
		v.Error = noDebugStats
	case err != nil:
		v.Error = dialReason(err)
	}
	return v
}

func statsNames(values []statsValue) []string {
	names := []string{}
	for _, v := range values {
		names = append(names, v.Node)
	}
	return names
}

// statsTable has a row for each node, then one for each of its endpoints.
func statsTable(values []statsValue) *table {
	t := &table{heads: []string{"NODE", "ENDPOINT", "CALLS", "ERRORS", "INFLIGHT", "P50", "P99", "MAX", "UP", "MEMORY", "GOROUTINES"}}
	for _, v := range values {
		if v.Stats == nil {
			continue
		}
		t.rows = append(t.rows, nodeStatsRow(v))
		endpoints := slices.Clone(v.Endpoints)
		slices.SortStableFunc(endpoints, func(a, b server.EndpointStats) int { return cmp.Compare(b.Calls, a.Calls) })
		for _, e := range endpoints {
			t.rows = append(t.rows, []cell{text(v.Node), text(e.Name), number(e.Calls), errorCell(e.Errors), text(strconv.FormatInt(e.Inflight, 10)),
				msCell(e.P50, e.Calls), msCell(e.P99, e.Calls), msCell(e.Max, e.Calls), {}, {}, {}})
		}
	}
	return t
}

// nodeStatsRow is the row of a whole node. What a node of go-micro does not tell stays empty.
func nodeStatsRow(v statsValue) []cell {
	row := []cell{text(v.Node), text("*"), number(v.Calls), errorCell(v.Errors), text(strconv.FormatInt(v.Inflight, 10)),
		{}, {}, {}, {}, text(bytesText(v.Memory)), text(count(v.Goroutines, ""))}
	if !v.Started.IsZero() {
		row[8] = ageSince(v.Started)
	}
	if v.told == nil {
		return row
	}
	for column, told := range map[int]bool{2: v.told.Calls != nil, 3: v.told.Errors != nil, 4: false, 9: v.told.Memory != 0, 10: v.told.Goroutines != 0} {
		if !told {
			row[column] = cell{}
		}
	}
	return row
}

func number(n uint64) cell { return text(strconv.FormatUint(n, 10)) }

func errorCell(n uint64) cell {
	if n > 0 {
		return number(n).as(bad)
	}
	return number(n)
}

// msCell writes milliseconds; without calls there is nothing to tell.
func msCell(ms float64, calls uint64) cell {
	if calls == 0 {
		return cell{}
	}
	return text(strconv.FormatFloat(ms, 'f', 2, 64) + "ms")
}

// bytesText writes a size in its largest binary unit.
func bytesText(n uint64) string {
	units := [...]string{"B", "KiB", "MiB", "GiB", "TiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	if i == 0 {
		return strconv.FormatUint(n, 10) + " B"
	}
	return strconv.FormatFloat(f, 'f', 1, 64) + " " + units[i]
}
