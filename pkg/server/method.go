package server

import (
	"context"
	"reflect"
	"unsafe"
)

// Reflection makes a slice, a frame and the results of each call. A unary method of a pointer has only pointers and a context
// for arguments, and the registers that carry a *Request carry an unsafe.Pointer just as well: so its code is called as a
// function of the latter. This file has all that is unsafe in that; the types were compared before, by readMethod.

// filler calls a method that fills its answer, returner one that returns it. The pointers are to messages of its types.
type (
	filler   func(ctx context.Context, req, rsp unsafe.Pointer) error
	returner func(ctx context.Context, req unsafe.Pointer) (unsafe.Pointer, error)
)

// fillerOf gives method i of rcvr, a func(context.Context, *Request, *Response) error.
func (m *method) fillerOf(rcvr reflect.Value, i int) filler {
	if rcvr.Kind() != reflect.Pointer {
		f := rcvr.Method(i)
		return func(ctx context.Context, req, rsp unsafe.Pointer) error {
			out := f.Call([]reflect.Value{reflect.ValueOf(ctx), reflect.NewAt(m.req, req), reflect.NewAt(m.rsp, rsp)})
			return asError(out[0])
		}
	}
	self, f := rcvr.UnsafePointer(), *(*func(self unsafe.Pointer, ctx context.Context, req, rsp unsafe.Pointer) error)(code(rcvr, i))
	return func(ctx context.Context, req, rsp unsafe.Pointer) error { return f(self, ctx, req, rsp) }
}

// returnerOf gives method i of rcvr, a func(context.Context, *Request) (*Response, error).
func (m *method) returnerOf(rcvr reflect.Value, i int) returner {
	if rcvr.Kind() != reflect.Pointer {
		f := rcvr.Method(i)
		return func(ctx context.Context, req unsafe.Pointer) (unsafe.Pointer, error) {
			out := f.Call([]reflect.Value{reflect.ValueOf(ctx), reflect.NewAt(m.req, req)})
			return out[0].UnsafePointer(), asError(out[1])
		}
	}
	self, f := rcvr.UnsafePointer(), *(*func(self unsafe.Pointer, ctx context.Context, req unsafe.Pointer) (unsafe.Pointer, error))(code(rcvr, i))
	return func(ctx context.Context, req unsafe.Pointer) (unsafe.Pointer, error) { return f(self, ctx, req) }
}

// code gives a pointer to a variable that holds method i as a function whose first argument is the receiver.
func code(rcvr reflect.Value, i int) unsafe.Pointer {
	f := rcvr.Type().Method(i).Func
	v := reflect.New(f.Type())
	v.Elem().Set(f)
	return v.UnsafePointer()
}

// pointer gives what v, a pointer, points to.
func pointer(v any) unsafe.Pointer { return reflect.ValueOf(v).UnsafePointer() }

// filling gives handlers by a method that fills its answer.
func (m method) filling(rcvr reflect.Value, i int) func(pooled bool) Handler {
	call := m.fillerOf(rcvr, i)
	return func(pooled bool) Handler {
		requests, answers := newStore(zero(m.req), pooled, true), newStore(zero(m.rsp), pooled, false)
		return func(ctx context.Context, c *Call) error {
			req, rsp := requests.get(), answers.get()
			err := c.Recv(req)
			if err == nil {
				if err = call(ctx, pointer(req), pointer(rsp)); err == nil {
					err = c.Send(rsp)
				}
			}
			answers.put(rsp) // it may hold parts of req
			requests.put(req)
			return err
		}
	}
}

// returning gives handlers by a method that returns its answer; nil is the zero one.
func (m method) returning(rcvr reflect.Value, i int) func(pooled bool) Handler {
	call, empty := m.returnerOf(rcvr, i), zero(m.rsp)
	return func(pooled bool) Handler {
		requests := newStore(zero(m.req), pooled, true)
		return func(ctx context.Context, c *Call) error {
			req := requests.get()
			err := c.Recv(req)
			if err == nil {
				var rsp unsafe.Pointer
				if rsp, err = call(ctx, pointer(req)); err == nil && rsp == nil {
					err = c.Send(empty())
				} else if err == nil {
					err = c.Send(reflect.NewAt(m.rsp, rsp).Interface()) // it may hold parts of req
				}
			}
			requests.put(req)
			return err
		}
	}
}

// zero gives what makes empty messages of a type.
func zero(t reflect.Type) func() any {
	return func() any { return reflect.New(t).Interface() }
}
