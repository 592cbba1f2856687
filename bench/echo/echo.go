// Package echo is the message and the service that all peers of the bench have. The generated code is written by
// bench/echo/generate.
package echo

// Metadata is what a call carries where the peer's cell has metadata: four pairs, keys and values by turns.
var Metadata = []string{"tenant", "acme", "user", "u-4711", "locale", "en-GB", "trace", "00-4bf92f3577b34da6a3ce929d0e0e4736-00"}
