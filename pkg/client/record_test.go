package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/codec/raw"
	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
	"github.com/cb02dfca/micro/pkg/transport/http"
)

// TestNoCallSeesAnother: callers of one client with bodies and metadata of their own, some of whom leave, all of whom look
// at what they get.
func TestNoCallSeesAnother(t *testing.T) {
	t.Parallel()
	tr, err := http.New(http.Options{})
	if err != nil {
		t.Fatal(err)
	}
	echo := func(s *server.Server) {
		_ = s.Handle(server.Endpoint{Name: "Say.Hello"}, func(ctx context.Context, c *server.Call) error {
			if metadata.Incoming(ctx).Get("slow") != "" {
				time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond)
			}
			body, err := c.RecvRaw()
			if err != nil {
				return err
			}
			return c.SendRaw(raw.ContentType, append([]byte(metadata.Incoming(ctx).Get("caller")+" "), body...))
		})
	}
	served := serveHTTP(t, tr, "greeter", echo)
	answer := func(ctx context.Context, req, rsp *transport.Message) error {
		if req.Header.Get("slow") != "" {
			if err := patient(time.Duration(rand.IntN(2000))*time.Microsecond)(ctx, req, rsp); err != nil {
				return err
			}
		}
		rsp.Header = append(rsp.Header[:0], metadata.Of(transport.HeaderContentType, raw.ContentType)...)
		rsp.Body = append(append(append(rsp.Body[:0], req.Header.Get("caller")...), ' '), req.Body...)
		return nil
	}
	for name, opts := range map[string][]client.Option{
		"frames":                 {client.WithTransport(tr)},
		"frames, 4 connections":  {client.WithTransport(tr), client.WithConnections(4)},
		"frames and middleware":  {client.WithTransport(tr), client.WithMiddleware(passing)},
		"a Caller":               nil,
		"Caller with middleware": {client.WithMiddleware(passing, passing), client.WithConnections(2)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := through(t, &wire{answer: answer}, append(opts, client.WithCodecs(codec.Set{raw.New()}))...)
			var callers sync.WaitGroup
			for i := range 16 {
				callers.Go(func() {
					for n := range 100 {
						leave := n%5 == 4
						if err := callAsOneOfMany(t.Context(), c, served, i, n, leave); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			callers.Wait()
		})
	}
}

// callAsOneOfMany makes the n-th call of a caller and tells what is wrong with the answer. One that leaves may get none.
func callAsOneOfMany(ctx context.Context, c *client.Client, addr string, caller, n int, leave bool) error {
	who := fmt.Sprintf("%d-%d", caller, n)
	body := bytes.Repeat([]byte(who+","), 1+rand.IntN(3000))
	sent := bytes.Clone(body)
	opts := []client.CallOption{client.Address(addr), client.Header("caller", who)}
	if leave {
		opts = append(opts, client.Header("slow", "yes"))
		wait := time.Duration(1 + rand.IntN(1000*1000))
		if n%2 == 0 {
			opts = append(opts, client.Timeout(wait))
		} else {
			var cancel context.CancelFunc
			ctx, cancel = context.WithCancel(ctx)
			defer time.AfterFunc(wait, cancel).Stop()
			defer cancel()
		}
	}
	var got []byte
	var err error
	if n%3 == 0 {
		var rsp *client.Response
		if rsp, err = c.Do(ctx, &client.Request{Service: "greeter", Endpoint: "Say.Hello", ContentType: raw.ContentType, Body: body}, opts...); err == nil {
			got = rsp.Body
		}
	} else {
		err = c.Call(ctx, "greeter", "Say.Hello", body, &got, opts...)
	}
	switch {
	case !bytes.Equal(body, sent):
		return fmt.Errorf("%s: its request was changed", who)
	case leave && (status.CodeOf(err) == status.Canceled || status.CodeOf(err) == status.DeadlineExceeded):
		return nil
	case err != nil:
		return fmt.Errorf("%s: %w", who, err)
	}
	if want := who + " " + string(sent); string(got) != want {
		return fmt.Errorf("%s: got %.60q, want %.60q", who, got, want)
	}
	return nil
}

// TestHeaderOfEachCall: a header is made anew wherever anything of it differs from that of the last call, and also where that one came so
// often that it is shared.
func TestHeaderOfEachCall(t *testing.T) {
	t.Parallel()
	var got metadata.MD
	c := through(t, &wire{answer: func(ctx context.Context, req, rsp *transport.Message) error {
		got = req.Header.Clone()
		if _, err := metadata.Parse(req.Header); err != nil {
			t.Errorf("%q: %v", req.Header, err)
		}
		return echoed(ctx, req, rsp)
	}})
	mutable := metadata.Of("a", "1", "b", "2")
	long := metadata.Of("a", string(bytes.Repeat([]byte("x"), metadata.MaxValue)), "b", string(bytes.Repeat([]byte("y"), metadata.MaxValue)))
	for i, tt := range []struct {
		endpoint         string
		outgoing, header metadata.MD
		change           func()
		want             map[string]string
	}{
		{"Say.Hello", nil, nil, nil, nil},
		{"Say.Hello", mutable, nil, nil, map[string]string{"a": "1", "b": "2"}},
		{"Say.Hello", mutable, nil, nil, map[string]string{"a": "1", "b": "2"}},
		{"Say.Bye", mutable, nil, nil, map[string]string{"a": "1", "b": "2"}},
		{"Say.Bye", mutable, metadata.Of("b", "3", "c", "4"), nil, map[string]string{"a": "1", "b": "3", "c": "4"}},
		{"Say.Bye", mutable, nil, func() { mutable[4] = '9' }, map[string]string{"a": "9", "b": "2"}},
		{"Say.Bye", nil, mutable, nil, map[string]string{"a": "9", "b": "2"}},
		{"Say.Bye", long, nil, nil, map[string]string{"a": long.Get("a"), "b": long.Get("b")}},
		{"Say.Bye", nil, nil, nil, nil},
		{"Say.Bye", append(metadata.Of("k", "1"), metadata.Of("k", "2", "l", "3")...), nil, nil, map[string]string{"k": "2", "l": "3"}},
		{"Say.Bye", metadata.Of("micro-service", "x", "content-type", "x", "micro-", "x", "micro", "y"), metadata.Of("micro-topic", "x"), nil, map[string]string{"micro": "y"}},
	} {
		if tt.change != nil {
			tt.change()
		}
		ctx := metadata.WithOutgoing(t.Context(), tt.outgoing)
		for range 1 + i%2*100 {
			if _, err := c.Do(ctx, &client.Request{Service: "greeter", Endpoint: tt.endpoint, ContentType: "text/plain", Header: tt.header}); err != nil {
				t.Fatal(err)
			}
		}
		want := map[string]string{transport.HeaderService: "greeter", transport.HeaderEndpoint: tt.endpoint, transport.HeaderContentType: "text/plain"}
		for k, v := range tt.want {
			want[k] = v
		}
		if got.Len() != len(want) {
			t.Errorf("call %d: header %q, want %q", i, got, want)
		}
		for k, v := range want {
			if got.Get(k) != v {
				t.Errorf("call %d: %s is %.20q, want %.20q", i, k, got.Get(k), v)
			}
		}
	}
}

// TestMalformedMetadata: metadata is a slice of bytes, and any may be given for it. It is refused before anything is sent, and
// the next call is well.
func TestMalformedMetadata(t *testing.T) {
	t.Parallel()
	many := metadata.MD(nil)
	for i := range metadata.MaxPairs - 2 { // the framework has three
		many, _ = many.Set(fmt.Sprint("k", i), "v")
	}
	big := metadata.MD(nil)
	for i := range 4 {
		big, _ = big.Set(fmt.Sprint("k", i), string(bytes.Repeat([]byte("x"), metadata.MaxValue-10)))
	}
	c := through(t, &wire{answer: echoed})
	for name, md := range map[string]metadata.MD{
		"cut off": metadata.Of("a", "1")[:3], "no key": {0, 0, 0}, "a key with a blank": {3, 'a', ' ', 'b', 0, 0}, "an upper-case key": {1, 'A', 0, 0},
		"a line break": {1, 'a', 0, 1, '\n'}, "too many": many, "too large": big,
	} {
		for _, header := range []bool{false, true} {
			ctx, req := t.Context(), &client.Request{Service: "greeter", Endpoint: "Say.Hello", ContentType: "text/plain"}
			if header {
				req.Header = md
			} else {
				ctx = metadata.WithOutgoing(ctx, md)
			}
			_, err := c.Do(ctx, req)
			var e *client.Error
			if !errors.Is(err, metadata.ErrInvalid) || !errors.As(err, &e) || e.Phase != client.Send || len(e.Attempts) != 0 {
				t.Errorf("%s: %v", name, err)
			}
			if _, err := c.Do(t.Context(), &client.Request{Service: "greeter", Endpoint: "Say.Hello"}); err != nil {
				t.Errorf("after %s: %v", name, err)
			}
		}
	}
}

// TestLentBody: a body that a connection has not done with when its call returns stays as it is, and one that is not the
// client's own is never lent.
func TestLentBody(t *testing.T) {
	t.Parallel()
	var lent [][]byte
	var want []string
	c := through(t, &wire{reads: true, answer: func(ctx context.Context, req, rsp *transport.Message) error {
		switch was := req.Lent; {
		case string(req.Body) == "theirs" && was:
			t.Error("the caller's own body was lent")
		case was && len(want)%2 == 0:
			lent, want = append(lent, req.Body), append(want, string(req.Body))
		default:
			want = append(want, "")
			lent = append(lent, nil)
			req.Lent = false
		}
		return echoed(ctx, req, rsp)
	}})
	for i := range 50 {
		if err := c.Call(t.Context(), "greeter", "Say.Hello", &text{fmt.Append(nil, "ours ", i)}, &text{}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Do(t.Context(), &client.Request{Service: "greeter", Endpoint: "Say.Hello", Body: []byte("theirs")}); err != nil {
			t.Fatal(err)
		}
	}
	kept := 0
	for i, body := range lent {
		if string(body) != want[i] {
			t.Errorf("the body %q is %q by now", want[i], body)
		}
		if want[i] != "" {
			kept++
		}
	}
	if kept == 0 {
		t.Error("no body was lent")
	}
}
