// Package greeterpb has the messages, the client and the handler of the service greeter. But for this file, micro generate
// writes it.
package greeterpb

//go:generate micro generate -I .. greeter.proto
