package server

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
)

// RegisterOption changes what [Server.Register] makes of a struct.
type RegisterOption func(*registration)

type registration struct {
	name    string
	skip    []string
	methods map[string][]EndpointOption
}

// Named sets the part before the dot. Default the type's name: Say gives "Say.Hello".
func Named(name string) RegisterOption { return func(r *registration) { r.name = name } }

// Skip leaves exported methods out that are no handlers.
func Skip(methods ...string) RegisterOption {
	return func(r *registration) { r.skip = append(r.skip, methods...) }
}

// Method gives options to the endpoint of one method.
func Method(name string, opts ...EndpointOption) RegisterOption {
	return func(r *registration) { r.methods[name] = append(r.methods[name], opts...) }
}

// Register registers every exported method of rcvr as an endpoint, "Type.Method". A method has one of these forms:
//
//	func (s *Say) Hello(ctx context.Context, req *HelloRequest, rsp *HelloResponse) error
//	func (s *Say) Hello(ctx context.Context, req *HelloRequest) (*HelloResponse, error)
//	func (s *Say) Count(ctx context.Context, req *CountRequest, out *server.Sender[Number]) error
//	func (s *Say) Sum(ctx context.Context, in *server.Receiver[Number]) (*Total, error)
//	func (s *Say) Chat(ctx context.Context, stream *server.Stream[Line, Line]) error
//
// A method of any other form is an error, unless Skip names it, and nothing is registered then.
//
// Unary methods of a pointer are called as directly as the handlers of [Handle] and [HandleInto]. Those of another receiver, and
// streams, are called by reflection, at about 0.2 µs and some allocations each.
func (s *Server) Register(rcvr any, opts ...RegisterOption) error {
	r := registration{methods: map[string][]EndpointOption{}}
	for _, opt := range opts {
		opt(&r)
	}
	v := reflect.ValueOf(rcvr)
	if !v.IsValid() || (v.Kind() == reflect.Pointer && v.IsNil()) {
		return s.refuse(fmt.Errorf("server %s: Register: no receiver", s.name))
	}
	if r.name == "" {
		r.name = reflect.Indirect(v).Type().Name()
	}
	endpoints, handlers, err := r.read(v)
	if err != nil {
		return s.refuse(fmt.Errorf("server %s: Register %s: %w", s.name, v.Type(), err))
	}
	var errs []error
	for i := range endpoints {
		errs = append(errs, s.Handle(endpoints[i], handlers[i]))
	}
	return errors.Join(errs...)
}

// read makes an endpoint and a handler of each method, or tells of all that it cannot.
func (r *registration) read(v reflect.Value) (endpoints []Endpoint, handlers []Handler, err error) {
	var errs []error
	for _, name := range r.skip {
		if _, ok := v.Type().MethodByName(name); !ok {
			errs = append(errs, fmt.Errorf("Skip names %q, which is no method", name))
		}
	}
	for name := range r.methods {
		if _, ok := v.Type().MethodByName(name); !ok {
			errs = append(errs, fmt.Errorf("Method names %q, which is no method", name))
		}
	}
	for i := range v.NumMethod() {
		name := v.Type().Method(i).Name
		if slices.Contains(r.skip, name) {
			continue
		}
		m, err := readMethod(v, i)
		if err != nil {
			errs = append(errs, fmt.Errorf("method %s: %w", name, err))
			continue
		}
		e := typed(r.name+"."+name, m.kind, m.req, m.rsp, r.methods[name])
		endpoints = append(endpoints, e)
		handlers = append(handlers, m.handler(e.pooled))
	}
	if len(errs) == 0 && len(endpoints) == 0 {
		errs = append(errs, errors.New("it has no exported methods; is the receiver a pointer?"))
	}
	return endpoints, handlers, errors.Join(errs...)
}

// method is a struct's method, read.
type method struct {
	kind     Kind
	req, rsp reflect.Type
	handler  func(pooled bool) Handler
}

// streamArg is what the pointers to Sender, Receiver and Stream have in common: reflection binds them to a call.
type streamArg interface {
	bind(c *Call)
	types() (req, rsp reflect.Type) // nil where the form has none
}

func (s *Sender[Rsp]) bind(c *Call)      { s.call = c }
func (r *Receiver[Req]) bind(c *Call)    { r.call = c }
func (s *Stream[Req, Rsp]) bind(c *Call) { s.call = c }
func (s *Sender[Rsp]) types() (_, rsp reflect.Type) {
	return nil, reflect.TypeFor[Rsp]()
}
func (r *Receiver[Req]) types() (req, _ reflect.Type) {
	return reflect.TypeFor[Req](), nil
}
func (s *Stream[Req, Rsp]) types() (req, rsp reflect.Type) {
	return reflect.TypeFor[Req](), reflect.TypeFor[Rsp]()
}

var errForm = errors.New("is no handler: want (context.Context, *Request) (*Response, error), (context.Context, *Request, *Response) error, " +
	"or a form with *server.Sender, *server.Receiver or *server.Stream; name it in server.Skip to leave it out")

func readMethod(rcvr reflect.Value, i int) (method, error) {
	f := rcvr.Method(i)
	t := f.Type()
	if t.IsVariadic() || t.NumIn() < 2 || t.NumIn() > 3 || t.In(0) != reflect.TypeFor[context.Context]() ||
		t.NumOut() < 1 || t.Out(t.NumOut()-1) != reflect.TypeFor[error]() {
		return method{}, errForm
	}
	for i := 1; i < t.NumIn(); i++ {
		if t.In(i).Kind() != reflect.Pointer {
			return method{}, errForm
		}
	}
	if t.NumOut() == 2 && t.Out(0).Kind() != reflect.Pointer {
		return method{}, errForm
	}
	last, isStream := reflect.New(t.In(t.NumIn() - 1).Elem()).Interface().(streamArg)
	switch {
	case !isStream && t.NumIn() == 2 && t.NumOut() == 2:
		m := method{kind: Unary, req: t.In(1).Elem(), rsp: t.Out(0).Elem()}
		m.handler = m.returning(rcvr, i)
		return m, nil
	case !isStream && t.NumIn() == 3 && t.NumOut() == 1:
		m := method{kind: Unary, req: t.In(1).Elem(), rsp: t.In(2).Elem()}
		m.handler = m.filling(rcvr, i)
		return m, nil
	case isStream:
		return readStream(f, last)
	}
	return method{}, errForm
}

func readStream(f reflect.Value, arg streamArg) (method, error) {
	t := f.Type()
	req, rsp := arg.types()
	switch {
	case t.NumIn() == 3 && t.NumOut() == 1 && req == nil:
		return method{ServerStream, t.In(1).Elem(), rsp, callStream(f)}, nil
	case t.NumIn() == 2 && t.NumOut() == 2 && rsp == nil:
		return method{ClientStream, req, t.Out(0).Elem(), callStream(f)}, nil
	case t.NumIn() == 2 && t.NumOut() == 1 && req != nil && rsp != nil:
		return method{Bidi, req, rsp, callStream(f)}, nil
	}
	return method{}, errForm
}

func asError(v reflect.Value) error {
	err, _ := v.Interface().(error)
	return err
}

func sendResult(c *Call, out []reflect.Value, rspType reflect.Type) error {
	if err := asError(out[1]); err != nil {
		return err
	}
	rsp := out[0]
	if rsp.IsNil() {
		rsp = reflect.New(rspType)
	}
	return c.Send(rsp.Interface())
}

// callStream calls a method whose last argument is a Sender, a Receiver or a Stream.
func callStream(f reflect.Value) func(pooled bool) Handler {
	t := f.Type()
	handler := func(ctx context.Context, c *Call) error {
		args := []reflect.Value{reflect.ValueOf(ctx)}
		if t.NumIn() == 3 {
			req := reflect.New(t.In(1).Elem())
			if err := one(c, req.Interface()); err != nil {
				return err
			}
			args = append(args, req)
		}
		arg := reflect.New(t.In(t.NumIn() - 1).Elem())
		arg.Interface().(streamArg).bind(c)
		out := f.Call(append(args, arg))
		if len(out) == 2 {
			return sendResult(c, out, t.Out(0).Elem())
		}
		return asError(out[0])
	}
	return func(bool) Handler { return handler } // Handle refuses a stream that is pooled
}
