package stub

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// names are the names of Go that the packages of a request have.
type names struct {
	prefix string
	taken  map[protogen.GoImportPath]map[string]bool
}

// newNames reads what protoc-gen-go declares for the files of p, the imported ones included: a package may have several.
func newNames(p *protogen.Plugin, prefix string) *names {
	n := &names{prefix: prefix, taken: map[protogen.GoImportPath]map[string]bool{}}
	for _, f := range p.Files {
		n.take(f.GoDescriptorIdent)
		for _, e := range f.Enums {
			n.takeEnum(e)
		}
		for _, m := range f.Messages {
			n.takeMessage(m)
		}
		n.takeExtensions(f.Extensions)
	}
	return n
}

func (n *names) take(id protogen.GoIdent) {
	if n.taken[id.GoImportPath] == nil {
		n.taken[id.GoImportPath] = map[string]bool{}
	}
	n.taken[id.GoImportPath][id.GoName] = true
}

func (n *names) takeEnum(e *protogen.Enum) {
	n.take(e.GoIdent)
	for _, suffix := range []string{"_name", "_value"} { // the maps of an enum
		n.take(e.GoIdent.GoImportPath.Ident(e.GoIdent.GoName + suffix))
	}
	for _, v := range e.Values {
		n.take(v.GoIdent)
	}
}

func (n *names) takeMessage(m *protogen.Message) {
	n.take(m.GoIdent)
	n.take(m.GoIdent.GoImportPath.Ident(m.GoIdent.GoName + "_builder")) // of the opaque API
	for _, f := range m.Fields {
		if f.Oneof != nil {
			n.take(f.GoIdent)
		}
		n.take(m.GoIdent.GoImportPath.Ident("Default_" + m.GoIdent.GoName + "_" + f.GoName))
	}
	for _, e := range m.Enums {
		n.takeEnum(e)
	}
	for _, nested := range m.Messages {
		n.takeMessage(nested)
	}
	n.takeExtensions(m.Extensions)
}

func (n *names) takeExtensions(extensions []*protogen.Extension) {
	for _, x := range extensions {
		name := "E_" + x.GoName
		if x.Parent != nil {
			name = "E_" + x.Parent.GoIdent.GoName + "_" + x.GoName
		}
		n.take(x.GoIdent.GoImportPath.Ident(name))
	}
}

// service is a service with the names that its code has.
type service struct {
	*protogen.Service
	client, newClient, caller        string // the interface, its constructor, and what implements it
	handler, register, unimplemented string
	endpoints                        map[*protogen.Method]string // the constants
	idempotent                       bool                        // one of its methods is

	// of the file that is written
	types                   map[*protogen.Message]string
	self, ctx, in, optsName string // the names of a method's variables
}

// service gives the names of a service of f.
func (n *names) service(f *protogen.File, s *protogen.Service) (*service, error) {
	sv := &service{Service: s, endpoints: map[*protogen.Method]string{}}
	methods := map[string]*protogen.Method{}
	for _, m := range s.Methods {
		if former := methods[m.GoName]; former != nil {
			return nil, errorAt(m.Desc, "methods %s and %s of %s have the same name in Go, %s", former.Desc.Name(), m.Desc.Name(), s.Desc.Name(), m.GoName)
		}
		methods[m.GoName] = m
		sv.idempotent = sv.idempotent || idempotent(m)
	}
	base := n.prefix + s.GoName
	free := func(name string) string { return n.free(f.GoImportPath, name) }
	sv.client, sv.newClient, sv.caller = free(base+"Client"), free("New"+base+"Client"), free(strings.ToLower(base[:1])+base[1:]+"Client")
	sv.handler, sv.register, sv.unimplemented = free(base+"Handler"), free("Register"+base+"Handler"), free("Unimplemented"+base+"Handler")
	for _, m := range s.Methods {
		sv.endpoints[m] = free(base + "_" + m.GoName + "_Endpoint")
	}
	return sv, nil
}

// free takes a name of a package: the one that is given, with as many underscores behind it as make it a new one.
func (n *names) free(path protogen.GoImportPath, name string) string {
	for n.taken[path][name] {
		name += "_"
	}
	n.take(path.Ident(name))
	return name
}

// resolve names the types of messages as g must, which imports their packages, and the variables of methods so that none of them
// hides such a package.
func (s *service) resolve(g *protogen.GeneratedFile) {
	s.types = map[*protogen.Message]string{}
	packages := map[string]bool{}
	for _, m := range s.Methods {
		for _, message := range []*protogen.Message{m.Input, m.Output} {
			s.types[message] = g.QualifiedGoIdent(message.GoIdent)
			if name, _, imported := strings.Cut(s.types[message], "."); imported {
				packages[name] = true
			}
		}
	}
	free := func(name string) string {
		for packages[name] {
			name += "_"
		}
		return name
	}
	s.self, s.ctx, s.in, s.optsName = free("c"), free("ctx"), free("in"), free("opts")
}

// idempotent tells a unary method that may run twice: idempotency_level is IDEMPOTENT or NO_SIDE_EFFECTS.
func idempotent(m *protogen.Method) bool {
	o, _ := m.Desc.Options().(*descriptorpb.MethodOptions)
	return o.GetIdempotencyLevel() != descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN && !m.Desc.IsStreamingClient() && !m.Desc.IsStreamingServer()
}

// errorAt is an error of the file, line and column where d stands.
func errorAt(d protoreflect.Descriptor, format string, args ...any) error {
	at := d.ParentFile().SourceLocations().ByDescriptor(d)
	return fmt.Errorf("%s:%d:%d: %s", d.ParentFile().Path(), at.StartLine+1, at.StartColumn+1, fmt.Sprintf(format, args...))
}
