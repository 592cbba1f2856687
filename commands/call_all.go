package commands

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/status"
)

// nodeAnswer is the JSON form of what one node answered.
type nodeAnswer struct {
	Node  string      `json:"node"`
	MS    float64     `json:"ms"`
	OK    bool        `json:"ok"`
	Body  any         `json:"body,omitempty"`
	Error *nodeDetail `json:"error,omitempty"`

	cell string // the answer, or the error, for the table
	code exitCode
}

// nodeDetail is the JSON form of what a node failed with.
type nodeDetail struct {
	Kind    string        `json:"kind"`
	Code    int           `json:"code,omitempty"` // of the status error
	Detail  string        `json:"detail"`
	Details []errorDetail `json:"details,omitempty"`
}

// findNodes asks the registry once for the nodes of --all.
func (c *caller) findNodes(ctx context.Context) error {
	found, err := c.in.discover(ctx)
	if err != nil {
		return err
	}
	all := found.of(c.o.service)
	if len(all) == 0 {
		return serviceNotFound(c.in, c.o.service, found)
	}
	c.nodes = slices.DeleteFunc(slices.Clone(all), func(n registry.Node) bool { return c.o.version != "" && n.Version != c.o.version })
	if len(c.nodes) == 0 {
		return versionNotFound(describeOptions{service: c.o.service, version: c.o.version}, all)
	}
	return nil
}

// callAll calls every node and prints a row for each. The exit code is that of the failures where every node failed.
func (c *caller) callAll(ctx context.Context, body []byte) error {
	body, err := c.o.input.wire(body)
	if err != nil {
		return err
	}
	done := c.waiting()
	answers := make([]nodeAnswer, len(c.nodes))
	each(c.nodes, func(i int, n registry.Node) { answers[i] = c.callNode(ctx, n, body) })
	done()
	if interrupted(ctx) {
		return ctx.Err()
	}
	t := &table{heads: []string{"NODE", "MS", "OK", "ANSWER"}}
	failed, code := 0, exitOK
	for _, a := range answers {
		verdict := text("yes").as(good)
		if !a.OK {
			verdict = text("no").as(bad)
			failed++
			code = max(code, a.code)
		}
		t.rows = append(t.rows, []cell{text(a.Node), text(strconv.FormatFloat(a.MS, 'f', 1, 64)), verdict, text(a.cell)})
	}
	if err := c.in.print(ctx, result{value: answers, table: t}); err != nil {
		return err
	}
	switch failed {
	case 0:
		return nil
	case len(answers):
		return exit(code)
	}
	return exit(exitPartly)
}

func (c *caller) callNode(ctx context.Context, n registry.Node, body []byte) nodeAnswer {
	begun := time.Now()
	rsp, err := c.client.Do(ctx, c.wire(body), client.Address(c.client.AddressOf(n)), client.Timeout(c.in.timeout))
	a := nodeAnswer{Node: n.ID, OK: err == nil, MS: float64(time.Since(begun).Round(10*time.Microsecond)) / float64(time.Millisecond)}
	if err == nil {
		a.Body = c.in.bodyValue(rsp.ContentType, rsp.Body)
		line, _ := encodeJSON(a.Body, "") // it was JSON, or is a string
		a.cell = string(line)
		return a
	}
	var st *status.Error
	a.code = codeOf(err)
	a.Error = &nodeDetail{Kind: a.code.kind(), Detail: dialReason(err)}
	a.cell = a.Error.Detail
	if errors.As(err, &st) {
		a.Error.Code, a.Error.Detail = int(st.Code), st.Detail
		a.Error.Details = c.in.errorDetails(st)
		a.cell = strconv.Itoa(int(st.Code)) + " " + st.Code.String() + ": " + st.Detail
	}
	return a
}
