package stub

import (
	"strconv"
	"strings"

	"google.golang.org/protobuf/compiler/protogen"
)

// writeHandler writes the interface that serves, its registration, and what answers for methods that a handler lacks.
func (s *service) writeHandler(g *protogen.GeneratedFile) {
	doc := s.handler + " serves " + string(s.Desc.Name()) + ": [" + s.register + "] takes it. Its methods are called concurrently. A handler that embeds\n" +
		" [" + s.unimplemented + "] goes on compiling when the .proto file gets a new method."
	writeDoc(g, doc, s.Comments.Leading, s.deprecated())
	g.P("type ", s.handler, " interface {")
	for _, m := range s.Methods {
		writeDoc(g, "", methodComments(m), deprecatedMethod(m))
		g.P(m.GoName, s.handlerSignature(g, m))
	}
	g.P("}")
	g.P()
	s.writeRegister(g)
	writeDoc(g, s.unimplemented+" refuses every method of "+string(s.Desc.Name())+" as not implemented. Embed it by value.", "", s.deprecated())
	g.P("type ", s.unimplemented, " struct{}")
	g.P()
	for _, m := range s.Methods {
		s.writeUnimplemented(g, m)
	}
}

// handlerSignature gives a method's parameters, without names, and results.
func (s *service) handlerSignature(g *protogen.GeneratedFile, m *protogen.Method) string {
	req, rsp := s.types[m.Input], s.types[m.Output]
	ctx := "(" + g.QualifiedGoIdent(contextPackage.Ident("Context")) + ", *"
	of := func(name string, args ...string) string {
		return g.QualifiedGoIdent(serverPackage.Ident(name)) + "[" + strings.Join(args, ", ") + "]"
	}
	switch in, out := m.Desc.IsStreamingClient(), m.Desc.IsStreamingServer(); {
	case in && out:
		return ctx + of("Stream", req, rsp) + ") error"
	case in:
		return ctx + of("Receiver", req) + ") (*" + rsp + ", error)"
	case out:
		return ctx + req + ", *" + of("Sender", rsp) + ") error"
	}
	return ctx + req + ") (*" + rsp + ", error)"
}

// writeRegister writes the registration, with what the .proto file says of each method: its comment, and whether it may run twice.
func (s *service) writeRegister(g *protogen.GeneratedFile) {
	doc := s.register + " registers h as the endpoints of " + string(s.Desc.Name()) + ", before the server serves. The options are those of Server.Register:\n" +
		" server.Method for the options of one endpoint, server.Skip to leave methods out, server.Named for another name before the dot."
	writeDoc(g, doc, "", s.deprecated())
	g.P("func ", s.register, "(s *", serverPackage.Ident("Server"), ", h ", s.handler, ", opts ...", serverPackage.Ident("RegisterOption"), ") error {")
	g.P("var methods []", serverPackage.Ident("BoundMethod"))
	g.P("if h != nil {")
	g.P("methods = []", serverPackage.Ident("BoundMethod"), "{")
	for _, m := range s.Methods {
		bind := map[string]string{"": "UnaryMethod", "Bidi": "BidiMethod", "Sender": "ClientStreamMethod", "Receiver": "ServerStreamMethod"}[s.streamType(m)]
		g.P(serverPackage.Ident(bind), `("`, m.GoName, `", h.`, m.GoName, s.endpointOptions(g, m), "),")
	}
	g.P("}")
	g.P("}")
	g.P(`return s.RegisterMethods("`, s.GoName, `", methods, opts...)`)
	g.P("}")
	g.P()
}

// endpointOptions gives the further arguments of a method's registration.
func (s *service) endpointOptions(g *protogen.GeneratedFile, m *protogen.Method) string {
	out := ""
	if text := sentence(methodComments(m)); text != "" {
		out += ", " + g.QualifiedGoIdent(serverPackage.Ident("Doc")) + "(" + strconv.Quote(text) + ")"
	}
	if idempotent(m) {
		out += ", " + g.QualifiedGoIdent(serverPackage.Ident("Idempotent")) + "()"
	}
	return out
}

// sentence gives the first sentence of a comment, in one line and without its full stop: what micro describe shows.
func sentence(comments protogen.Comments) string {
	paragraph, _, _ := strings.Cut(strings.TrimSpace(string(comments)), "\n\n")
	text := strings.Join(strings.Fields(paragraph), " ")
	if first, _, more := strings.Cut(text, ". "); more {
		text = first
	}
	return strings.TrimSuffix(text, ".")
}

func (s *service) writeUnimplemented(g *protogen.GeneratedFile, m *protogen.Method) {
	refusal := []any{statusPackage.Ident("New"), "(", statusPackage.Ident("Unimplemented"), `, "`, s.GoName, ".", m.GoName, ` is not implemented")`}
	g.P("func (", s.unimplemented, ") ", m.GoName, s.handlerSignature(g, m), " {")
	if m.Desc.IsStreamingServer() {
		g.P(append([]any{"return "}, refusal...)...)
	} else {
		g.P(append([]any{"return nil, "}, refusal...)...)
	}
	g.P("}")
	g.P()
}
