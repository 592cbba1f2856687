package server

import (
	"slices"

	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/transport"
)

// Describe gives what is served, Debug.* too, sorted by name. It is of transport.Describer.
func (s served) Describe() []transport.Served {
	var all []transport.Served
	for _, name := range s.server.names() {
		e := s.server.endpoints[name]
		all = append(all, transport.Served{Name: name, Doc: e.Doc, Request: e.request, Response: e.response,
			ClientStreams: e.Kind == ClientStream || e.Kind == Bidi, ServerStreams: e.Kind == ServerStream || e.Kind == Bidi})
	}
	return all
}

// Widen has the codecs that f gives for the server's spoken instead. It is of codec.Widener, for listeners that are about to serve.
func (s served) Widen(f func(codec.Codec) codec.Codec) {
	wide := slices.Clone(s.server.codecs)
	for i, c := range wide {
		if _, envelope := c.(codec.Envelope); !envelope {
			wide[i] = f(c)
		}
	}
	s.server.codecs = wide
}
