// Command raw is the limit of what a call can cost on package net: length-prefixed frames, with no codec, no method, no
// metadata, no timeout and no context. raw-mux has many calls under way on a connection, raw-pp one.
package main

import "github.com/cb02dfca/micro/bench/internal/worker"

func main() {
	worker.Main(map[string]worker.Peer{"raw-mux": mux{}, "raw-pp": pingPong{}})
}
