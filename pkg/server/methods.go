package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// BoundMethod is a method of a service with its types and its defaults, as generated code makes it for [Server.RegisterMethods]:
// by [UnaryMethod], [ServerStreamMethod], [ClientStreamMethod] or [BidiMethod].
type BoundMethod struct {
	name     string
	opts     []EndpointOption
	register func(s *Server, endpoint string, opts []EndpointOption) error
}

// UnaryMethod is a method as [Handle] takes it.
func UnaryMethod[Req, Rsp any](name string, h func(context.Context, *Req) (*Rsp, error), opts ...EndpointOption) BoundMethod {
	return BoundMethod{name, opts, func(s *Server, endpoint string, opts []EndpointOption) error {
		return Handle(s, endpoint, h, opts...)
	}}
}

// ServerStreamMethod is a method as [HandleServerStream] takes it.
func ServerStreamMethod[Req, Rsp any](name string, h func(context.Context, *Req, *Sender[Rsp]) error, opts ...EndpointOption) BoundMethod {
	return BoundMethod{name, opts, func(s *Server, endpoint string, opts []EndpointOption) error {
		return HandleServerStream(s, endpoint, h, opts...)
	}}
}

// ClientStreamMethod is a method as [HandleClientStream] takes it.
func ClientStreamMethod[Req, Rsp any](name string, h func(context.Context, *Receiver[Req]) (*Rsp, error), opts ...EndpointOption) BoundMethod {
	return BoundMethod{name, opts, func(s *Server, endpoint string, opts []EndpointOption) error {
		return HandleClientStream(s, endpoint, h, opts...)
	}}
}

// BidiMethod is a method as [HandleBidi] takes it.
func BidiMethod[Req, Rsp any](name string, h func(context.Context, *Stream[Req, Rsp]) error, opts ...EndpointOption) BoundMethod {
	return BoundMethod{name, opts, func(s *Server, endpoint string, opts []EndpointOption) error {
		return HandleBidi(s, endpoint, h, opts...)
	}}
}

// RegisterMethods registers methods as the endpoints "Name.Method", without reflection. [Named] changes what stands before the dot,
// [Skip] leaves methods out, and the options of [Method] come after a method's own. An option that names no method is an error, and
// nothing is registered then; so is an empty list, which is what generated code gives for a handler that is nil.
func (s *Server) RegisterMethods(name string, methods []BoundMethod, opts ...RegisterOption) error {
	r := registration{name: name, methods: map[string][]EndpointOption{}}
	for _, opt := range opts {
		opt(&r)
	}
	if err := r.check(methods); err != nil {
		return s.refuse(fmt.Errorf("server %s: methods of %s: %w", s.name, name, err))
	}
	var errs []error
	for _, m := range methods {
		if !slices.Contains(r.skip, m.name) {
			errs = append(errs, m.register(s, r.name+"."+m.name, slices.Concat(m.opts, r.methods[m.name])))
		}
	}
	return errors.Join(errs...)
}

// check tells of options that name no method, and of no methods at all.
func (r *registration) check(methods []BoundMethod) error {
	if len(methods) == 0 {
		return errors.New("no handler")
	}
	known := func(name string) bool {
		return slices.ContainsFunc(methods, func(m BoundMethod) bool { return m.name == name })
	}
	var errs []error
	for _, name := range r.skip {
		if !known(name) {
			errs = append(errs, fmt.Errorf("Skip names %q, which is no method", name))
		}
	}
	for name := range r.methods {
		if !known(name) {
			errs = append(errs, fmt.Errorf("Method names %q, which is no method", name))
		}
	}
	return errors.Join(errs...)
}
