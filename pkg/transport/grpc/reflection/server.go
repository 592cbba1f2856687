package reflection

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/cb02dfca/micro/internal/protoform"
	"github.com/cb02dfca/micro/pkg/transport"
)

// Server answers questions of reflection. Make it with [NewServer]. Its methods may be called concurrently.
type Server struct {
	files    *protoregistry.Files
	services []string          // in their order
	renamed  map[string]string // the endpoints whose names protobuf does not have, by the full names of their methods
}

// NewServer makes a Server of what a service serves.
//
// Endpoints with the name of a service and a method of some .proto file that is linked into the program, and with its messages,
// are told by that file: "Greeter.SayHello" by helloworld.Greeter. Others have a descriptor made for them: of the
// service "greeter", "Say.Hello" is the method Hello of greeter.Say. Messages of protobuf have their own descriptors in it,
// Go types those of package codec/protostruct, and what has no known type is google.protobuf.Value. Characters that
// protobuf has not in its names are "_" there.
//
// others are files whose services the program serves besides: those of gRPC's health, say.
func NewServer(service string, endpoints []transport.Served, others ...protoreflect.FileDescriptor) (*Server, error) {
	b := builder{s: &Server{files: new(protoregistry.Files), renamed: map[string]string{}}, pkg: packageName(service)}
	for _, fd := range append(others, fileOf("v1"), fileOf("v1alpha")) {
		if err := b.include(fd); err != nil {
			return nil, err
		}
		for i := range fd.Services().Len() {
			b.s.services = append(b.s.services, string(fd.Services().Get(i).FullName()))
		}
	}
	if err := b.describe(service, endpoints); err != nil {
		return nil, err
	}
	slices.Sort(b.s.services)
	b.s.services = slices.Compact(b.s.services)
	return b.s, nil
}

// Services gives the full names of the services, sorted.
func (s *Server) Services() []string { return slices.Clone(s.services) }

// Endpoint gives the endpoint that a method stands for, "my_service.Say.Hello", where it is not called so: empty is none.
func (s *Server) Endpoint(method string) string { return s.renamed[method] }

// Serve answers the questions of one stream until recv gives io.EOF. It holds one conversation, and each file is sent in it once.
func (s *Server) Serve(recv func() ([]byte, error), send func([]byte) error) error {
	sent := map[string]bool{}
	for {
		asked, err := recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		q, err := readQuestion(asked)
		a := answer{err: &Error{codeInvalidArgument, "the request does not decode"}}
		if err == nil {
			a = s.answer(&q, sent)
		}
		if err := send(a.append(nil, asked, &q)); err != nil {
			return err
		}
	}
}

func (s *Server) answer(q *question, sent map[string]bool) answer {
	var fd protoreflect.FileDescriptor
	var err error
	switch q.ask {
	case askServices:
		return answer{services: s.Services()}
	case askFile:
		fd, err = s.files.FindFileByPath(q.text)
	case askSymbol:
		var d protoreflect.Descriptor
		if d, err = s.files.FindDescriptorByName(protoreflect.FullName(q.text)); err == nil {
			fd = d.ParentFile()
		}
	case askExtension, askExtensionNumbers:
		return s.extensions(q, sent)
	default:
		return answer{err: &Error{codeInvalidArgument, "the request asks nothing that is known here"}}
	}
	if err != nil {
		return answer{err: &Error{codeNotFound, fmt.Sprintf("there is no %q", q.text)}}
	}
	return answer{files: withImports(nil, fd, sent)}
}

// extensions answers questions about the extensions of a message.
func (s *Server) extensions(q *question, sent map[string]bool) answer {
	if _, err := s.files.FindDescriptorByName(protoreflect.FullName(q.text)); err != nil {
		return answer{err: &Error{codeNotFound, fmt.Sprintf("there is no %q", q.text)}}
	}
	a := answer{base: q.text}
	s.files.RangeFiles(func(fd protoreflect.FileDescriptor) bool {
		eachExtension(fd, func(x protoreflect.ExtensionDescriptor) {
			switch {
			case string(x.ContainingMessage().FullName()) != q.text:
			case q.ask == askExtensionNumbers:
				a.numbers = append(a.numbers, int32(x.Number()))
			case int32(x.Number()) == q.number:
				a.files = withImports(a.files, fd, sent)
				a.base = ""
			}
		})
		return a.base != ""
	})
	if q.ask == askExtension && a.base != "" {
		return answer{err: &Error{codeNotFound, fmt.Sprintf("%s has no extension %d", q.text, q.number)}}
	}
	slices.Sort(a.numbers)
	return a
}

// extender is a file, or a message, in which extensions are declared.
type extender interface {
	Extensions() protoreflect.ExtensionDescriptors
	Messages() protoreflect.MessageDescriptors
}

func eachExtension(in extender, f func(protoreflect.ExtensionDescriptor)) {
	for i := range in.Extensions().Len() {
		f(in.Extensions().Get(i))
	}
	for i := range in.Messages().Len() {
		eachExtension(in.Messages().Get(i), f)
	}
}

// withImports appends a file, and then those that it imports, but for what was sent.
func withImports(files [][]byte, fd protoreflect.FileDescriptor, sent map[string]bool) [][]byte {
	if sent[fd.Path()] {
		return files
	}
	sent[fd.Path()] = true
	if !fd.IsPlaceholder() {
		data, err := proto.Marshal(protodesc.ToFileDescriptorProto(fd))
		if err != nil { // a descriptor has no required field
			return files
		}
		files = append(files, data)
	}
	for i := range fd.Imports().Len() {
		files = withImports(files, fd.Imports().Get(i).FileDescriptor, sent)
	}
	return files
}

// builder makes a Server.
type builder struct {
	s   *Server
	pkg string
}

// include takes a file in, with those that it imports. Of several of one path, as of several that declare one name, the first counts.
func (b *builder) include(fd protoreflect.FileDescriptor) error {
	if fd.IsPlaceholder() {
		return nil
	}
	if _, err := b.s.files.FindFileByPath(fd.Path()); err == nil {
		return nil
	}
	for i := range fd.Imports().Len() {
		if err := b.include(fd.Imports().Get(i).FileDescriptor); err != nil {
			return err
		}
	}
	if err := b.s.files.RegisterFile(fd); err != nil {
		return fmt.Errorf("reflection: %w", err)
	}
	return nil
}

// describe takes the endpoints in.
func (b *builder) describe(service string, endpoints []transport.Served) error {
	var names []string
	groups := map[string][]transport.Served{}
	for _, e := range endpoints {
		name, _ := split(service, e.Name)
		if groups[name] == nil {
			names = append(names, name)
		}
		groups[name] = append(groups[name], e)
	}
	slices.Sort(names)
	var made []string
	for _, name := range names {
		sd := linked(name, groups[name])
		if sd == nil {
			made = append(made, name)
			continue
		}
		if err := b.include(sd.ParentFile()); err != nil {
			return err
		}
		b.s.services = append(b.s.services, string(sd.FullName()))
	}
	// The messages of endpoints that have a descriptor made are files to import, and take their names first.
	for _, name := range made {
		for _, e := range groups[name] {
			for _, t := range []reflect.Type{e.Request, e.Response} {
				if md := protoform.Descriptor(t); md != nil {
					if err := b.include(md.ParentFile()); err != nil {
						return err
					}
				}
			}
		}
	}
	if len(made) == 0 {
		return nil
	}
	return b.make(service, made, groups)
}

// make makes the file of the services that no file describes.
func (b *builder) make(service string, names []string, groups map[string][]transport.Served) error {
	for slices.ContainsFunc(names, func(name string) bool { return b.taken(b.pkg, protoform.Identifier(lastPart(name))) }) {
		b.pkg += ".micro" // a caller may put anything before the last dot
	}
	path := protoform.Identifier(service) + ".proto"
	for i := 2; b.hasFile(path); i++ {
		path = protoform.Identifier(service) + strconv.Itoa(i) + ".proto"
	}
	forms := new(protoform.Forms)
	f := protoform.NewFile(forms, path, b.pkg, func(name protoreflect.FullName) bool {
		_, err := b.s.files.FindDescriptorByName(name)
		return err == nil || slices.ContainsFunc(names, func(s string) bool { return string(name) == b.pkg+"."+protoform.Identifier(s) })
	})
	for _, name := range names {
		var methods []protoform.Method
		for _, e := range groups[name] {
			_, method := split(service, e.Name)
			if full := protoform.Identifier(name) + "." + protoform.Identifier(method); full != e.Name {
				b.s.renamed[b.pkg+"."+full] = e.Name
			}
			methods = append(methods, protoform.Method{Name: method, Doc: e.Doc, Request: e.Request, Response: e.Response,
				ClientStreams: e.ClientStreams, ServerStreams: e.ServerStreams})
		}
		f.Service(protoform.Identifier(name), methods)
	}
	fdp, imports := f.Descriptor()
	for _, fd := range imports {
		if err := b.include(fd); err != nil {
			return err
		}
	}
	fd, err := protodesc.NewFile(fdp, b.s.files)
	if err != nil {
		return fmt.Errorf("reflection: the descriptor of %s: %w", service, err)
	}
	for i := range fd.Services().Len() {
		b.s.services = append(b.s.services, string(fd.Services().Get(i).FullName()))
	}
	return b.include(fd)
}

func (b *builder) taken(pkg, name string) bool {
	_, err := b.s.files.FindDescriptorByName(protoreflect.FullName(pkg + "." + name))
	return err == nil
}

func (b *builder) hasFile(path string) bool {
	_, err := b.s.files.FindFileByPath(path)
	return err == nil
}

// split takes an endpoint's name apart: what stands before the last dot is the service's. A name without a dot is of the service
// that is named as the whole.
func split(service, endpoint string) (name, method string) {
	if i := strings.LastIndexByte(endpoint, '.'); i > 0 {
		return endpoint[:i], endpoint[i+1:]
	}
	return lastPart(service), endpoint
}

func lastPart(name string) string { return name[strings.LastIndexByte(name, '.')+1:] }

// packageName makes a package of a service's name.
func packageName(service string) string {
	var parts []string
	for part := range strings.SplitSeq(service, ".") {
		if part != "" {
			parts = append(parts, protoform.Identifier(part))
		}
	}
	return strings.Join(parts, ".")
}

// linked finds a service among the files that are linked into the program which has that name and all those methods.
func linked(name string, endpoints []transport.Served) (found protoreflect.ServiceDescriptor) {
	protoregistry.GlobalFiles.RangeFiles(func(fd protoreflect.FileDescriptor) bool {
		for i := range fd.Services().Len() {
			sd := fd.Services().Get(i)
			if string(sd.Name()) != name || !slices.ContainsFunc(endpoints, func(e transport.Served) bool { return isOf(sd, e) }) ||
				slices.ContainsFunc(endpoints, func(e transport.Served) bool { return !isOf(sd, e) }) {
				continue
			}
			if found == nil || sd.FullName() < found.FullName() { // the files come in any order
				found = sd
			}
		}
		return true
	})
	return found
}

// isOf reports whether an endpoint is a method of a service.
func isOf(sd protoreflect.ServiceDescriptor, e transport.Served) bool {
	_, method := split("", e.Name)
	md := sd.Methods().ByName(protoreflect.Name(method))
	return md != nil && md.IsStreamingClient() == e.ClientStreams && md.IsStreamingServer() == e.ServerStreams &&
		isMessage(e.Request, md.Input()) && isMessage(e.Response, md.Output())
}

func isMessage(t reflect.Type, md protoreflect.MessageDescriptor) bool {
	got := protoform.Descriptor(t)
	return got != nil && got.FullName() == md.FullName()
}
