// Package demo has the services that the micro binary serves by itself: something to list, call, stream from and
// publish to before anything is written.
package demo

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/cb02dfca/micro/internal/terminal"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/micro"
	"github.com/cb02dfca/micro/pkg/schema"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
)

// Topic is what the greeter subscribes to.
const Topic = "topic"

// The bounds of what a caller may ask for.
const (
	maxTimes   = 10
	maxCount   = 1_000_000
	maxPause   = 10_000 // milliseconds
	loggedBody = 512    // bytes of a message that are logged
)

// HelloRequest is the request of Say.Hello.
type HelloRequest struct {
	Name  string `json:"name" doc:"who to greet" required:"true"`
	Times int32  `json:"times,omitempty" doc:"how often, 1 to 10" default:"1"`
}

// HelloResponse is its answer.
type HelloResponse struct {
	Msg string `json:"msg" doc:"the greeting"`
}

// CountRequest is the request of Say.Count.
type CountRequest struct {
	To    int64 `json:"to" doc:"the last number, at most 1000000" default:"3"`
	Pause int64 `json:"pause,omitempty" doc:"milliseconds between two numbers, at most 10000"`
}

// Number is one of its answers.
type Number struct {
	N int64 `json:"n" doc:"the number"`
}

// Line is what Say.Chat takes and gives.
type Line struct {
	Text string `json:"text" doc:"what is said"`
}

// Greeter registers the demo service: Say.Hello and Say.Echo are calls, Say.Count streams its answers, Say.Chat streams
// both ways, and messages of Topic are logged.
func Greeter(s *micro.Service, log *slog.Logger) error {
	return errors.Join(
		micro.Handle(s, "Say.Hello", hello, server.Doc("Greets by name"), server.Idempotent()),
		s.Server().Handle(server.Endpoint{
			Name: "Say.Echo", Doc: "Answers with the request", Idempotent: true, Request: new(schema.Schema), Response: new(schema.Schema),
		}, echo),
		micro.HandleServerStream(s, "Say.Count", countTo, server.Doc("Counts from 1")),
		micro.HandleBidi(s, "Say.Chat", chat, server.Doc("Says each line again")),
		s.Subscribe(Topic, logMessage(log)),
	)
}

// Echo registers a service that gives back what it gets, in any form: Echo.Call a request, Echo.Stream each message of
// a stream.
func Echo(s *micro.Service) error {
	return errors.Join(
		s.Server().Handle(server.Endpoint{
			Name: "Echo.Call", Doc: "Answers with the request", Idempotent: true, Request: new(schema.Schema), Response: new(schema.Schema),
		}, echo),
		s.Server().Handle(server.Endpoint{
			Name: "Echo.Stream", Kind: server.Bidi, Doc: "Sends each message back", Request: new(schema.Schema), Response: new(schema.Schema),
		}, echoStream),
	)
}

func hello(_ context.Context, in *HelloRequest) (*HelloResponse, error) {
	switch {
	case in.Name == "":
		return nil, status.New(status.InvalidArgument, "name is empty")
	case in.Times < 0 || in.Times > maxTimes:
		return nil, status.New(status.InvalidArgument, "times is %d, want 1 to %d", in.Times, maxTimes)
	}
	greeting := "Hello " + in.Name
	return &HelloResponse{Msg: greeting + strings.Repeat(", "+greeting, int(max(in.Times, 1))-1)}, nil
}

func countTo(ctx context.Context, in *CountRequest, out *micro.Sender[Number]) error {
	switch {
	case in.To < 0 || in.To > maxCount:
		return status.New(status.InvalidArgument, "to is %d, want 1 to %d", in.To, maxCount)
	case in.Pause < 0 || in.Pause > maxPause:
		return status.New(status.InvalidArgument, "pause is %d, want 0 to %d", in.Pause, maxPause)
	case in.To == 0:
		in.To = 3
	}
	for n := int64(1); n <= in.To; n++ {
		if n > 1 && in.Pause > 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Duration(in.Pause) * time.Millisecond):
			}
		}
		if err := out.Send(&Number{N: n}); err != nil {
			return err
		}
	}
	return nil
}

func chat(_ context.Context, s *micro.Stream[Line, Line]) error {
	for line, err := range s.All() {
		if err != nil {
			return err
		}
		if err := s.Send(line); err != nil {
			return err
		}
	}
	return nil
}

// echo answers with the request's own bytes, in its own content type.
func echo(_ context.Context, c *server.Call) error {
	body, err := c.RecvRaw()
	if err != nil {
		return err
	}
	if c.ContentType() == "application/json" {
		switch {
		case len(body) == 0:
			body = []byte("{}")
		case !json.Valid(body):
			return status.New(status.InvalidArgument, "request is not JSON")
		}
	}
	return c.SendRaw("", body)
}

func echoStream(_ context.Context, c *server.Call) error {
	for {
		body, err := c.RecvRaw()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := c.SendRaw("", body); err != nil {
			return err
		}
	}
}

func logMessage(log *slog.Logger) broker.Handler {
	return func(ctx context.Context, m *broker.Message) error {
		body := string(m.Body[:min(len(m.Body), loggedBody)])
		log.LogAttrs(ctx, slog.LevelInfo, "message "+terminal.Line(body), slog.String("topic", m.Topic), slog.String("id", m.ID), slog.Int("bytes", len(m.Body)))
		return nil
	}
}
