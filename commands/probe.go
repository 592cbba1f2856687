package commands

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/server"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// probes is how many nodes are asked at once.
const probes = 32

// ask calls one of the Debug endpoints of a node and decodes its answer. took is the round trip, with the dialling.
func (in *invocation) ask(ctx context.Context, c *client.Client, n registry.Node, endpoint string, answer any) (took time.Duration, err error) {
	begun := in.Now()
	rsp, err := c.Do(ctx, &client.Request{Service: n.Service, Endpoint: endpoint, ContentType: "application/json", Body: []byte("{}")},
		client.Address(c.AddressOf(n)), client.Timeout(in.timeout))
	took = in.Now().Sub(begun)
	if err != nil {
		return took, err
	}
	if err := json.Unmarshal(rsp.Body, answer); err != nil {
		return took, fmt.Errorf("%s of %s answered what cannot be read: %w", endpoint, n.ID, err)
	}
	return took, nil
}

// each calls f for each node, up to probes at once, and returns when all have returned.
func each(nodes []registry.Node, f func(i int, n registry.Node)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, probes)
	for i, n := range nodes {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			f(i, n)
		})
	}
	wg.Wait()
}

// check is what became of the question how a node is.
type check struct {
	status string // of server.Health; "alive", "unreachable", "timeout", "unknown" or "error"
	detail string
	rtt    time.Duration
	err    error
}

// The states of a node that did not tell its own.
const (
	unreachable = "unreachable"
	timedOut    = "timeout"
	alive       = "alive"   // it answers, and has no Debug.Health
	unknown     = "unknown" // its Debug.Health does not say
	broken      = "error"
)

// healthy reports whether nothing speaks against the node. One that answers, and cannot say how it is, runs all the same.
func (c check) healthy() bool { return c.status == server.HealthOK || c.status == alive }

func (c check) ms() *float64 {
	if c.err != nil {
		return nil
	}
	ms := float64(c.rtt.Round(10*time.Microsecond)) / float64(time.Millisecond)
	return &ms
}

func (c check) statusCell() cell {
	switch c.status {
	case server.HealthOK, alive:
		return text(c.status).as(good)
	case server.HealthStarting, server.HealthStopping, unknown:
		return text(c.status).as(warn)
	}
	return text(c.status).as(bad)
}

func (c check) rttCell() cell {
	if ms := c.ms(); ms != nil {
		return text(strconv.FormatFloat(*ms, 'f', 1, 64) + "ms")
	}
	return cell{}
}

// checkNodes asks each node how it is.
func (in *invocation) checkNodes(ctx context.Context, nodes []registry.Node) ([]check, error) {
	c, err := in.dialer(ctx)
	if err != nil {
		return nil, err
	}
	done := in.waiting("%d nodes", len(nodes))
	defer done()
	out := make([]check, len(nodes))
	each(nodes, func(i int, n registry.Node) {
		var h server.Health
		took, err := in.ask(ctx, c, n, server.DebugHealth, &h)
		out[i] = newCheck(h, took, err)
		if out[i].status == alive && speaksGRPC(n) {
			out[i] = in.askGRPCHealth(ctx, c, c.AddressOf(n), "")
		}
	})
	return out, nil
}

func newCheck(h server.Health, took time.Duration, err error) check {
	var st *status.Error
	switch {
	case err == nil:
		return check{status: or(h.Status, unknown), detail: h.Detail, rtt: took}
	case errors.As(err, &st) && lacking(st):
		return check{status: alive, detail: "it answers, and has no Debug.Health", rtt: took}
	case codeOf(err) == exitTimeout:
		return check{status: timedOut, detail: dialReason(err), err: err}
	case errors.As(err, &st):
		return check{status: broken, detail: st.Error(), err: err}
	case transport.NotSent(err):
		return check{status: unreachable, detail: dialReason(err), err: err}
	}
	return check{status: broken, detail: dialReason(err), err: err}
}

// lacking reports whether a node says that it has no such endpoint. go-micro, like net/rpc, has one code for all, and says it by the text.
func lacking(e *status.Error) bool {
	return e.Code == status.NotFound || e.Code == status.Unimplemented ||
		e.Code == status.Internal && strings.HasPrefix(e.Detail, "rpc: can't find ")
}

// hungUp reports whether the other side closed the connection, or its system did when its process had ended.
func hungUp(err error) bool {
	return errIs(err, io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE)
}

// dialReason says in a word why a node cannot be reached.
func dialReason(err error) string {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	case hungUp(err):
		return "it closed the connection"
	}
	var ce *client.Error
	if errors.As(err, &ce) {
		err = ce.Err
	}
	text := trimPackage(err.Error())
	for _, prefix := range []string{"unavailable: ", "not sent: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	if strings.Contains(text, "malformed HTTP ") { // net/http goes on with all that it got
		return "what answers there does not speak HTTP"
	}
	if dialled, why, found := strings.Cut(text, ": "); found && strings.HasPrefix(dialled, "dial ") {
		return why // the address stands beside it anyway
	}
	return text
}
