package main

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/cb02dfca/micro/servers/gomicropeer"
	"go-micro.dev/v4"
	microerrors "go-micro.dev/v4/errors"
	"go-micro.dev/v4/metadata"
	"go-micro.dev/v4/server"
)

// Say is called.
type Say struct{}

// Hello greets.
func (*Say) Hello(ctx context.Context, req *Request, rsp *Response) error {
	rsp.Msg, rsp.Seq = "Hello "+req.Name+" from "+made, req.Count
	return nil
}

// Header gives the metadata.
func (*Say) Header(ctx context.Context, req *Request, rsp *Response) error {
	md, _ := metadata.FromContext(ctx)
	rsp.Header = md
	return nil
}

// Fail fails as the name says: "plain", "panic", "sleep" for as many milliseconds as the count says, or with an error of go-micro's.
func (*Say) Fail(ctx context.Context, req *Request, rsp *Response) error {
	switch req.Name {
	case "plain":
		return errors.New("a plain error")
	case "panic":
		panic("at the disco")
	case "sleep":
		time.Sleep(time.Duration(req.Count) * time.Millisecond)
		rsp.Msg = "slept"
		return nil
	}
	return microerrors.BadRequest("say.fail", "bad name: %s", req.Name)
}

// Plain has messages that are no protobuf messages.
type Plain struct{}

// Hello greets.
func (*Plain) Hello(ctx context.Context, req *gomicropeer.PlainRequest, rsp *gomicropeer.PlainResponse) error {
	rsp.Msg, rsp.Seq = "Hello "+req.Name+" from "+made, req.Count
	return nil
}

// Stream has streams. It waits a little after each message that it sends: from v2.6 on, go-micro's server sends the last of several that
// leave at once in place of each.
type Stream struct{ pace time.Duration }

// Echo answers each message, until the client ends the stream, or a message has the name "finish" or "fail".
func (s *Stream) Echo(_ context.Context, stream server.Stream) error {
	for {
		var req Request
		switch err := stream.Recv(&req); {
		case errors.Is(err, io.EOF) || req.Name == "finish":
			return nil
		case err != nil:
			return err
		case req.Name == "fail":
			return microerrors.Forbidden("stream.echo", "no more")
		}
		if err := stream.Send(&Response{Msg: "echo " + req.Name, Seq: req.Count}); err != nil {
			return err
		}
		time.Sleep(s.pace)
	}
}

// Count sends as many messages as the one it gets says.
func (s *Stream) Count(_ context.Context, stream server.Stream) error {
	var req Request
	if err := stream.Recv(&req); err != nil {
		return err
	}
	for n := range req.Count {
		if err := stream.Send(&Response{Msg: "item " + req.Name, Seq: n + 1}); err != nil {
			return err
		}
		time.Sleep(s.pace)
	}
	return nil
}

func heard(ctx context.Context, m *Request) error {
	md, _ := metadata.FromContext(ctx)
	gomicropeer.Say("event ", map[string]any{"name": m.Name, "count": m.Count, "header": md})
	return nil
}

func serve(o *gomicropeer.Options, name string, up func(string), stop <-chan struct{}) error {
	options, err := parts(o)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var s micro.Service
	options = append(options,
		micro.Name(name), micro.Version(o.Version), micro.Metadata(o.Metadata), micro.Context(ctx), micro.HandleSignal(false),
		micro.AfterStart(func() error { up(s.Server().Options().Address); return nil }))
	if o.Address != "" {
		options = append(options, micro.Address(o.Address))
	}
	s = micro.NewService(options...)
	for _, h := range []any{new(Say), new(Plain), &Stream{o.Pace}} {
		if err := micro.RegisterHandler(s.Server(), h); err != nil {
			return err
		}
	}
	if o.Topic != "" {
		var options []server.SubscriberOption
		if o.Queue != "" {
			options = append(options, server.SubscriberQueue(o.Queue))
		}
		if err := micro.RegisterSubscriber(o.Topic, s.Server(), heard, options...); err != nil {
			return err
		}
	}
	go func() { <-stop; cancel() }()
	return s.Run()
}
