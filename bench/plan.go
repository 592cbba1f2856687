package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cb02dfca/micro/bench/internal/cell"
)

// part is some cells that some contenders are measured in.
type part struct {
	name  string
	cells []string
	peers string // names, or "all"
	// once says that a single round will do: curves have many points already, and each is compared with its neighbours.
	once bool
}

// parts are what the bench measures when it is not told otherwise, in this order.
var parts = []part{
	{name: "calls", peers: "all", cells: []string{
		"16/1/1", "1k/1/1", "16/64/1", "1k/64/1", "1k/64/8", "64k/64/8", "1k/512/8", "1k/64/1@10000"}},
	{name: "streams", peers: "micro,grpc,drpc,connect-h1,connect-h2c", cells: []string{"stream:1k/1/1", "stream:1k/16/1"}},
	{name: "fanout", peers: "micro,micro-keep,nats-micro", cells: []string{"fanout:128/1/1", "fanout:128/1/16"}},
	{name: "callers", peers: "micro,grpc", once: true, cells: []string{"1k/1/1", "1k/10/1", "1k/100/1", "1k/1000/1", "1k/10000/1"}},
	{name: "connections", peers: "micro,grpc", once: true, cells: []string{"1k/1000/1", "1k/1000/10", "1k/1000/100", "1k/1000/1000"}},
	{name: "payload", peers: "micro,grpc", once: true, cells: []string{
		"16/8/1", "256/8/1", "4k/8/1", "64k/8/1", "1m/8/1", "4m/8/1"}},
	{name: "nodes", peers: "micro", once: true, cells: []string{
		"1k/64/1+nodes=1", "1k/64/1+nodes=10", "1k/64/1+nodes=100", "1k/64/1+nodes=1000", "1k/64/1+nodes=10000"}},
	{name: "selection", peers: "micro-select,micro-watch", once: true, cells: []string{
		"16/1/1+nodes=1", "16/1/1+nodes=10", "16/1/1+nodes=100", "16/1/1+nodes=1000", "16/1/1+nodes=10000"}},
	{name: "endpoints", peers: "micro", once: true, cells: []string{
		"1k/64/1+endpoints=1", "1k/64/1+endpoints=10", "1k/64/1+endpoints=100", "1k/64/1+endpoints=1000"}},
	{name: "subscribers", peers: "micro", once: true, cells: []string{
		"fanout:128/1/1", "fanout:128/1/10", "fanout:128/1/100", "fanout:128/1/1000"}},
	{name: "idle", peers: "micro,grpc", once: true, cells: []string{"idle:1k/1/10000"}},
}

// step is a cell and who is measured in it.
type step struct {
	cell  cell.Cell
	peers []contender
	once  bool
}

// plan gives the steps of the named parts, for those of the chosen contenders that they are for.
func plan(names string, chosen []contender) ([]step, error) {
	var steps []step
	for name := range strings.SplitSeq(names, ",") {
		found := false
		for _, p := range parts {
			if p.name != name && names != "all" {
				continue
			}
			found = true
			own, err := choose(p.peers)
			if err != nil {
				return nil, err
			}
			own = slices.DeleteFunc(slices.Clone(own), func(c contender) bool { return !slices.Contains(chosen, c) })
			more, err := stepsOf(p.cells, own, p.once)
			if err != nil {
				return nil, err
			}
			steps = append(steps, beside(steps, more)...)
		}
		if !found && name != "start" {
			return nil, fmt.Errorf("unknown part %q: want all, or some of %s,start", name, partNames())
		}
	}
	return steps, nil
}

// beside gives of more what is not among steps already: curves share cells with the tables.
func beside(steps, more []step) (out []step) {
	for _, m := range more {
		for _, s := range steps {
			if s.cell == m.cell {
				m.peers = slices.DeleteFunc(m.peers, func(c contender) bool { return slices.Contains(s.peers, c) })
			}
		}
		if len(m.peers) > 0 {
			out = append(out, m)
		}
	}
	return out
}

func stepsOf(cells []string, peers []contender, once bool) ([]step, error) {
	var steps []step
	for _, text := range cells {
		c, err := cell.Parse(text)
		if err != nil {
			return nil, err
		}
		if len(peers) > 0 {
			steps = append(steps, step{c, slices.Clone(peers), once})
		}
	}
	return steps, nil
}

func partNames() string {
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	return strings.Join(names, ",")
}
