package main

import (
	"fmt"
	"slices"
	"strings"
)

// contender is a peer, and the program of bench/peers that it is in.
type contender struct {
	name, program string
	module        string // whose version the tables tell; empty for this project and the standard library
}

// contenders are all peers, in the order of the tables.
var contenders = []contender{
	{"raw-mux", "raw", ""},
	{"raw-pp", "raw", ""},
	{"micro", "micro", ""},
	{"micro-bare", "micro", ""},
	{"micro-keep", "micro", ""},
	{"grpc", "grpc", "google.golang.org/grpc"},
	{"grpc-full", "grpc", "google.golang.org/grpc"},
	{"drpc", "drpc", "storj.io/drpc"},
	{"connect-h1", "connect", "connectrpc.com/connect"},
	{"connect-h2c", "connect", "connectrpc.com/connect"},
	{"twirp", "twirp", "github.com/twitchtv/twirp"},
	{"nats-micro", "nats", "github.com/nats-io/nats.go"},
	{"netrpc-gob", "netrpc", ""},
	{"fasthttp", "fasthttp", "github.com/valyala/fasthttp"},
	{"nethttp-json", "nethttp", ""},
	{"micro-json", "micro", ""},
	{"micro-select", "micro", ""},
	{"micro-watch", "micro", ""},
	{"micro-tls", "micro", ""},
	{"grpc-tls", "grpc", "google.golang.org/grpc"},
}

// choose gives the contenders that names, separated by commas, are; all of them for "all".
func choose(names string) ([]contender, error) {
	if names == "all" {
		return contenders, nil
	}
	var out []contender
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(contenders, func(c contender) bool { return c.name == name })
		if i < 0 {
			return nil, fmt.Errorf("unknown peer %q: want all, or some of %s", name, known())
		}
		out = append(out, contenders[i])
	}
	return out, nil
}

func known() string {
	var names []string
	for _, c := range contenders {
		names = append(names, c.name)
	}
	return strings.Join(names, ",")
}

// programs gives the programs of some contenders, each once.
func programs(of []contender) []string {
	var out []string
	for _, c := range of {
		if !slices.Contains(out, c.program) {
			out = append(out, c.program)
		}
	}
	return out
}
