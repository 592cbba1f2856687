package stub

import (
	"strings"

	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/types/descriptorpb"
)

// writeEndpoints writes the endpoints' names: for middleware, and for whoever calls without the client.
func (s *service) writeEndpoints(g *protogen.GeneratedFile) {
	g.P("// The endpoints of ", s.Desc.Name(), ".")
	g.P("const (")
	for _, m := range s.Methods {
		g.P(s.endpoints[m], ` = "`, s.GoName, ".", m.GoName, `"`)
	}
	g.P(")")
	g.P()
}

// writeClient writes the interface that calls, and what implements it.
func (s *service) writeClient(g *protogen.GeneratedFile) {
	writeDoc(g, s.client+" calls "+string(s.Desc.Name())+". Make it with ["+s.newClient+"]. Its methods may be called concurrently.", s.Comments.Leading, s.deprecated())
	g.P("type ", s.client, " interface {")
	for _, m := range s.Methods {
		writeDoc(g, "", methodComments(m), deprecatedMethod(m))
		g.P(m.GoName, s.clientSignature(g, m))
	}
	g.P("}")
	g.P()
	g.P("type ", s.caller, " struct {")
	g.P("client *", clientPackage.Ident("Client"))
	g.P("service string")
	g.P("opts []", clientPackage.Ident("CallOption"))
	if s.idempotent {
		g.P("again []", clientPackage.Ident("CallOption"), " // of methods that may run twice")
	}
	g.P("}")
	g.P()
	s.writeNewClient(g)
	for _, m := range s.Methods {
		s.writeCall(g, m)
	}
}

func (s *service) writeNewClient(g *protogen.GeneratedFile) {
	doc := s.newClient + " makes a client of the service that is registered under the name service. The options count in every\n" +
		" call, before those that the call is given. c stays the caller's to close."
	writeDoc(g, doc, "", s.deprecated())
	g.P("func ", s.newClient, "(c *", clientPackage.Ident("Client"), ", service string, opts ...", clientPackage.Ident("CallOption"), ") ", s.client, " {")
	if s.idempotent {
		g.P("again := ", clientPackage.Ident("Join"), "(opts, []", clientPackage.Ident("CallOption"), "{", clientPackage.Ident("Idempotent"), "()})")
		g.P("return &", s.caller, "{c, service, opts, again}")
	} else {
		g.P("return &", s.caller, "{c, service, opts}")
	}
	g.P("}")
	g.P()
}

// clientSignature gives a method's parameters and results.
func (s *service) clientSignature(g *protogen.GeneratedFile, m *protogen.Method) string {
	params := []string{s.ctx + " " + g.QualifiedGoIdent(contextPackage.Ident("Context"))}
	if !m.Desc.IsStreamingClient() {
		params = append(params, s.in+" *"+s.types[m.Input])
	}
	params = append(params, s.optsName+" ..."+g.QualifiedGoIdent(clientPackage.Ident("CallOption")))
	result := "*" + s.types[m.Output]
	if name := s.streamType(m); name != "" {
		result = "*" + g.QualifiedGoIdent(clientPackage.Ident(name))
	}
	return "(" + strings.Join(params, ", ") + ") (" + result + s.streamArgs(m) + ", error)"
}

// streamType gives the type of package client that a method's caller has of the stream; none for a unary method.
func (s *service) streamType(m *protogen.Method) string {
	switch in, out := m.Desc.IsStreamingClient(), m.Desc.IsStreamingServer(); {
	case in && out:
		return "Bidi"
	case in:
		return "Sender"
	case out:
		return "Receiver"
	}
	return ""
}

// streamArgs gives the type arguments of streamType and of what opens the stream; those of a call for a unary method are none.
func (s *service) streamArgs(m *protogen.Method) string {
	switch {
	case m.Desc.IsStreamingClient():
		return "[" + s.types[m.Input] + ", " + s.types[m.Output] + "]"
	case m.Desc.IsStreamingServer():
		return "[" + s.types[m.Output] + "]"
	}
	return ""
}

func (s *service) writeCall(g *protogen.GeneratedFile, m *protogen.Method) {
	function, args := "Call", "["+s.types[m.Output]+"]"
	if s.streamType(m) != "" {
		function, args = map[string]string{"Bidi": "BidiStream", "Sender": "ClientStream", "Receiver": "ServerStream"}[s.streamType(m)], s.streamArgs(m)
	}
	values := []string{s.ctx, s.self + ".client", s.self + ".service", s.endpoints[m]}
	if !m.Desc.IsStreamingClient() {
		values = append(values, s.in)
	}
	defaults := s.self + ".opts"
	if idempotent(m) {
		defaults = s.self + ".again"
	}
	join := g.QualifiedGoIdent(clientPackage.Ident("Join")) + "(" + defaults + ", " + s.optsName + ")..."
	g.P("func (", s.self, " *", s.caller, ") ", m.GoName, s.clientSignature(g, m), " {")
	g.P("return ", clientPackage.Ident(function), args, "(", strings.Join(append(values, join), ", "), ")")
	g.P("}")
	g.P()
}

// writeDoc writes a doc comment: a sentence of ours, what the .proto file says, and the mark of what is deprecated.
func writeDoc(g *protogen.GeneratedFile, sentence string, comments protogen.Comments, deprecated bool) {
	var parts []string
	if sentence != "" {
		parts = append(parts, " "+sentence+"\n")
	}
	if text := strings.TrimRight(string(comments), " \n"); text != "" {
		parts = append(parts, text+"\n")
	}
	if deprecated && !strings.Contains(string(comments), "Deprecated:") {
		parts = append(parts, " Deprecated: it is marked as such in the .proto file.\n")
	}
	if len(parts) > 0 {
		g.P(strings.TrimSuffix(protogen.Comments(strings.Join(parts, "\n")).String(), "\n"))
	}
}

// methodComments gives what stands above a method, or else behind it.
func methodComments(m *protogen.Method) protogen.Comments {
	if m.Comments.Leading != "" {
		return m.Comments.Leading
	}
	return m.Comments.Trailing
}

func deprecatedMethod(m *protogen.Method) bool {
	o, _ := m.Desc.Options().(*descriptorpb.MethodOptions)
	return o.GetDeprecated()
}

func (s *service) deprecated() bool {
	o, _ := s.Desc.Options().(*descriptorpb.ServiceOptions)
	return o.GetDeprecated()
}
