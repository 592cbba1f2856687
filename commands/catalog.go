package commands

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/cb02dfca/micro/internal/protofile"
	"github.com/cb02dfca/micro/internal/suggest"
	"github.com/cb02dfca/micro/pkg/client"
	codecproto "github.com/cb02dfca/micro/pkg/codec/proto"
	"github.com/cb02dfca/micro/pkg/schema"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport/grpc/reflection"
)

// catalog is services that descriptors tell of: a server's, by reflection, or those of .proto files. Its messages are protobuf.
type catalog struct {
	told     string   // by whom: "reflection", or the files
	services []string // full names, without those of gRPC itself
	find     func(name string) (protoreflect.ServiceDescriptor, error)
}

// protoFlags are the flags of commands that read .proto files.
func protoFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "proto", Usage: "read the services from the .proto `FILE`, for servers that do not tell; may stand several times"},
		&cli.StringSliceFlag{Name: "proto-path", Aliases: []string{"I"}, Usage: "look for --proto and its imports in `FOLDER`; may stand several times"},
	}
}

// protoFiles are the values of protoFlags.
type protoFiles struct{ files, paths []string }

func (in *invocation) readProtoFiles() (protoFiles, error) {
	p := protoFiles{in.flags.StringSlice("proto"), in.flags.StringSlice("proto-path")}
	if len(p.files) == 0 && len(p.paths) > 0 {
		return p, usage("flag --proto-path is for --proto, which is not given")
	}
	return p, nil
}

// catalog reads the files.
func (p protoFiles) catalog(ctx context.Context) (*catalog, error) {
	fds, err := protofile.Load(ctx, p.files, p.paths)
	if err != nil {
		f := usage("flag --proto: %s", strings.TrimPrefix(err.Error(), "protofile: ")).because(err)
		if errors.Is(err, protofile.ErrSource) && len(p.paths) == 0 && strings.Contains(err.Error(), "could not resolve path") {
			return nil, f.hint("where imports are", "--proto-path FOLDER")
		}
		return nil, f
	}
	byName := map[string]protoreflect.ServiceDescriptor{}
	c := &catalog{told: strings.Join(p.files, ", "), find: func(name string) (protoreflect.ServiceDescriptor, error) {
		if sd := byName[name]; sd != nil {
			return sd, nil
		}
		return nil, reflection.ErrNotFound
	}}
	for _, fd := range fds {
		for i := range fd.Services().Len() {
			sd := fd.Services().Get(i)
			byName[string(sd.FullName())] = sd
			c.services = append(c.services, string(sd.FullName()))
		}
	}
	if slices.Sort(c.services); len(c.services) == 0 {
		return nil, usage("flag --proto: %s has no service", c.told)
	}
	return c, nil
}

// reflected asks the server at an address. The error wraps reflection.ErrNone where it does not tell. What was asked for is found as long as
// the command runs.
func (in *invocation) reflected(ctx context.Context, cl *client.Client, address string) (*catalog, error) {
	open := func(ctx context.Context, method string) (reflection.Stream, error) {
		st, err := cl.Stream(ctx, "", method, client.Address(address), client.ContentType(codecproto.ContentType))
		if err != nil {
			return nil, err
		}
		return reflectionStream{st}, nil
	}
	c, err := reflection.Dial(ctx, open, func(err error) bool {
		var st *status.Error
		return errors.As(err, &st) && st.Remote && lacking(st)
	})
	if err != nil {
		return nil, err
	}
	in.onClose(c)
	all := c.Services()
	services := slices.DeleteFunc(slices.Clone(all), func(name string) bool {
		return strings.HasPrefix(name, "grpc.reflection.") || strings.HasPrefix(name, "grpc.health.")
	})
	find := func(name string) (protoreflect.ServiceDescriptor, error) {
		if !slices.Contains(all, name) { // servers answer in many ways to what they do not have
			return nil, reflection.ErrNotFound
		}
		return c.Service(name)
	}
	return &catalog{told: "reflection", services: services, find: find}, nil
}

// reflectionStream is a client's stream as package reflection takes it.
type reflectionStream struct{ *client.Stream }

func (s reflectionStream) Send(m []byte) error   { return s.SendRaw(m) }
func (s reflectionStream) Recv() ([]byte, error) { return s.RecvRaw() }

// method finds what a name means: "pkg.Service/Method", "pkg.Service.Method", the service's last part alone, and a service where it
// has one method. The name may be empty where there is one service.
func (c *catalog) method(name string) (protoreflect.MethodDescriptor, error) {
	name = strings.ReplaceAll(strings.TrimPrefix(name, "/"), "/", ".")
	if at := strings.LastIndexByte(name, '.'); at > 0 {
		sd, err := c.service(name[:at])
		switch {
		case err != nil && !errors.Is(err, reflection.ErrNotFound):
			return nil, err
		case err == nil && sd.Methods().ByName(protoreflect.Name(name[at+1:])) != nil:
			return sd.Methods().ByName(protoreflect.Name(name[at+1:])), nil
		case err == nil:
			return nil, c.notFound(pathOf(sd)+"/"+name[at+1:], sd)
		}
	}
	sd, err := c.service(name)
	switch {
	case errors.Is(err, reflection.ErrNotFound):
		return nil, c.notFound(name)
	case err != nil:
		return nil, err
	case sd.Methods().Len() == 1:
		return sd.Methods().Get(0), nil
	}
	f := usage("%s has %s: which one?", sd.FullName(), plural(sd.Methods().Len(), "method"))
	if n := sd.Methods().Len(); n > 0 && n < 8 {
		f = f.hint("one of", strings.Join(methodNames(sd), ", "))
	}
	return nil, f
}

// service finds a service by its full name, or by the last part of it where one alone has that.
func (c *catalog) service(name string) (protoreflect.ServiceDescriptor, error) {
	if name == "" {
		if len(c.services) != 1 {
			return nil, usage("%s tells of %s: which one?", c.told, plural(len(c.services), "service")).hint("one of", strings.Join(c.services, ", "))
		}
		return c.find(c.services[0])
	}
	sd, err := c.find(name)
	if err == nil || !errors.Is(err, reflection.ErrNotFound) {
		return sd, err
	}
	var fits []string
	for _, full := range c.services {
		if strings.HasSuffix(full, "."+name) {
			fits = append(fits, full)
		}
	}
	switch len(fits) {
	case 0:
		return nil, err
	case 1:
		return c.find(fits[0])
	}
	return nil, usage("%q may be %s: write it out", name, strings.Join(fits, " or "))
}

// notFound is the failure of a name that no service has. in are services to look for a similar one in; none is all.
func (c *catalog) notFound(name string, in ...protoreflect.ServiceDescriptor) error {
	if len(in) == 0 {
		for _, full := range c.services {
			if sd, err := c.find(full); err == nil {
				in = append(in, sd)
			}
		}
	}
	known := slices.Clone(c.services)
	for _, sd := range in {
		for _, m := range methodNames(sd) {
			known = append(known, pathOf(sd)+"/"+m)
		}
	}
	f := fail(exitNotFound, "%s tells of no %q", c.told, name)
	if near := suggest.Closest(name, known); near != "" {
		return f.hint("did you mean", near)
	}
	if len(c.services) > 0 && len(c.services) < 8 {
		return f.hint("it tells of", strings.Join(c.services, ", "))
	}
	return f
}

func pathOf(sd protoreflect.ServiceDescriptor) string { return string(sd.FullName()) }

func methodNames(sd protoreflect.ServiceDescriptor) []string {
	names := make([]string, sd.Methods().Len())
	for i := range names {
		names[i] = string(sd.Methods().Get(i).Name())
	}
	return names
}

// methods gives what the catalog tells of, in its order; where name is not empty, of a service or a method of that name.
func (c *catalog) methods(name string) ([]protoreflect.MethodDescriptor, error) {
	services := c.services
	if name != "" {
		sd, err := c.service(strings.ReplaceAll(name, "/", "."))
		if errors.Is(err, reflection.ErrNotFound) {
			m, err := c.method(name)
			return []protoreflect.MethodDescriptor{m}, err
		}
		if err != nil {
			return nil, err
		}
		services = []string{string(sd.FullName())}
	}
	var all []protoreflect.MethodDescriptor
	for _, full := range services {
		sd, err := c.find(full)
		if err != nil {
			return nil, err
		}
		for i := range sd.Methods().Len() {
			all = append(all, sd.Methods().Get(i))
		}
	}
	return all, nil
}

// methodPath is what a method is called by over gRPC.
func methodPath(m protoreflect.MethodDescriptor) string {
	return string(m.Parent().FullName()) + "/" + string(m.Name())
}

// endpointOf describes a method as the endpoint that it is.
func endpointOf(m protoreflect.MethodDescriptor, name string) server.Endpoint {
	e := server.Endpoint{Name: name, Kind: server.Unary, RequestType: string(m.Input().Name()), ResponseType: string(m.Output().Name()),
		Request: schema.OfMessage(m.Input()), Response: schema.OfMessage(m.Output())}
	switch {
	case m.IsStreamingClient() && m.IsStreamingServer():
		e.Kind = server.Bidi
	case m.IsStreamingClient():
		e.Kind = server.ClientStream
	case m.IsStreamingServer():
		e.Kind = server.ServerStream
	}
	comment := m.ParentFile().SourceLocations().ByDescriptor(m).LeadingComments
	e.Doc = strings.Join(strings.Fields(comment), " ")
	return e
}
