package transport

import "reflect"

// Describer is what Endpoints offer that know the messages of each: for a protocol that tells its callers what there is to call, as
// gRPC does by reflection.
type Describer interface {
	// Describe gives what is served, sorted by name.
	Describe() []Served
}

// Served describes an endpoint.
type Served struct {
	// Name is what callers ask for: "Say.Hello".
	Name string
	// Doc says in a sentence what it does.
	Doc string
	// ClientStreams and ServerStreams say that there may be many requests, and answers.
	ClientStreams, ServerStreams bool
	// Request and Response are the Go types of the messages; nil where that is not known.
	Request, Response reflect.Type
}
