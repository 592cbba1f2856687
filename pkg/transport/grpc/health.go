package grpc

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/cb02dfca/micro/pkg/status"
)

// The health service (https://github.com/grpc/grpc/blob/master/doc/health-checking.md).
const (
	healthService = "grpc.health.v1.Health"

	fieldHealthService = 1 // string of HealthCheckRequest
	fieldHealthStatus  = 1 // enum of HealthCheckResponse

	healthServing        = 1
	healthNotServing     = 2
	healthServiceUnknown = 3
)

// healthInterval is how often a Watch looks.
const healthInterval = time.Second

// serveHealth tells of the server what Debug.Health does: of all of it by the empty name, and of a service by that of a handler, with or
// without what stands before it.
func (l *Listener) serveHealth(ctx context.Context, c *Call) error {
	body, err := c.Recv()
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = status.New(status.InvalidArgument, "there is no request")
		}
		return err
	}
	var service string
	if !fields(body, func(field protowire.Number, _ uint64, value []byte) {
		if field == fieldHealthService {
			service = string(value)
		}
	}) {
		return status.New(status.InvalidArgument, "the request does not decode")
	}
	switch c.Method() {
	case "Check":
		state := l.health(ctx, c, service)
		if state == healthServiceUnknown {
			return status.New(status.NotFound, "unknown service %.100q", service)
		}
		return c.Send(appendUint(nil, fieldHealthStatus, state))
	case "Watch":
		return l.watchHealth(ctx, c, service)
	}
	return status.Refuse(status.Unimplemented, "there is no method %.100q of %s", c.Method(), healthService)
}

// watchHealth sends the state as it is, and after each change.
func (l *Listener) watchHealth(ctx context.Context, c *Call, service string) error {
	tick := time.NewTicker(healthInterval)
	defer tick.Stop()
	sent := uint64(0)
	for {
		if state := l.health(ctx, c, service); state != sent && ctx.Err() == nil {
			if err := c.Send(appendUint(nil, fieldHealthStatus, state)); err != nil {
				return err
			}
			sent = state
		}
		if l.stopped() {
			return status.Refuse(status.Unavailable, "the server is shutting down")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.done:
		case <-tick.C:
		}
	}
}

// health gives the state of a service.
func (l *Listener) health(ctx context.Context, c *Call, service string) uint64 {
	switch {
	case !l.serves(service):
		return healthServiceUnknown
	case l.stopped():
		return healthNotServing
	}
	body, err := c.Ask(ctx, "Debug.Health", "application/json", nil)
	var answer struct{ Status string }
	switch {
	case status.CodeOf(err) == status.NotFound || status.CodeOf(err) == status.Unimplemented || status.CodeOf(err) == status.UnsupportedMedia:
		return healthServing // what answers has no word for it
	case err != nil, json.Unmarshal(body, &answer) != nil, answer.Status != "ok":
		return healthNotServing
	}
	return healthServing
}

// serves reports whether there is a service of that name: the server's own, or that of a handler with whatever stands before it.
func (l *Listener) serves(service string) bool {
	if service == "" || l.services[service] != nil || l.endpoints == nil || service == l.endpoints.Service() {
		return true
	}
	for _, name := range l.endpoints.Names() {
		at := strings.LastIndexByte(name, '.')
		if at > 0 && (service == name[:at] || strings.HasSuffix(service, "."+name[:at])) {
			return true
		}
	}
	return false
}
