package commands

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cb02dfca/micro/internal/terminal"
	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/status"
)

// call makes the call and prints the answer.
func (c *caller) call(ctx context.Context, body []byte) error {
	sent, err := c.o.input.wire(body)
	if err != nil {
		return err
	}
	begun := time.Now()
	done := c.waiting()
	rsp, err := c.client.Do(ctx, c.wire(sent), c.options(client.Observe(c.observeCall(len(sent))))...)
	done()
	took := time.Since(begun)
	c.tellOutcome(rsp, err, took)
	if err != nil {
		return c.blame(err, c.explain(ctx, err), body)
	}
	return c.in.print(ctx, c.in.answer(rsp, c.o.include))
}

// wire is the request as the client sends it.
func (c *caller) wire(body []byte) *client.Request {
	return &client.Request{Service: c.o.service, Endpoint: or(c.path, c.o.endpoint), ContentType: c.o.input.contentType, Header: c.o.header.metadata, Body: body}
}

// stepWidth is the column of the times of -v.
const stepWidth = 64

// tell writes a line of -v with its time.
func (c *caller) tell(text string, took time.Duration) {
	if !c.in.verbose {
		return
	}
	text = terminal.Line(text)
	gap := strings.Repeat(" ", max(1, stepWidth-utf8.RuneCountInString(text)))
	c.in.say("%s", text+gap+strconv.FormatFloat(float64(took)/float64(time.Millisecond), 'f', 1, 64)+"ms")
}

// observe tells the phases with -v, as they end.
func (c *caller) observe(e client.Event) {
	place := placeOf(e.Node)
	switch {
	case e.Phase == client.Select && e.Err == nil && c.o.address == "" && e.Node.ID != c.node.ID:
		c.tell("* registry  "+c.in.registryShown()+": "+strings.TrimSpace(e.Node.Service+" "+e.Node.Version), e.Elapsed)
	case e.Phase == client.Dial && e.Err != nil:
		c.tell("* connect   "+place+"  "+dialReason(e.Err), e.Elapsed)
	case e.Phase == client.Dial && e.Reused:
		c.tell("* connect   "+place+" (reused)", e.Elapsed)
	case e.Phase == client.Dial:
		c.tell("* connect   "+place, e.Elapsed)
	case e.Err != nil && e.Phase != client.Select && e.Phase != client.Done:
		c.tell("* "+pad(string(e.Phase), 10)+place+"  "+dialReason(e.Err), e.Elapsed)
	}
}

func pad(s string, width int) string { return s + strings.Repeat(" ", max(0, width-len(s))) }

// observeCall tells what is sent, too.
func (c *caller) observeCall(size int) func(client.Event) {
	return func(e client.Event) {
		c.observe(e)
		if c.in.verbose && e.Phase == client.Dial && e.Err == nil {
			c.in.say("> %s  %s %d B%s", pad(c.o.endpoint, outcomeWidth), shortType(c.o.input.contentType), size, c.headerNames())
		}
	}
}

// headerNames lists what -H adds; the values may be secrets.
func (c *caller) headerNames() string {
	var names []string
	for k := range c.o.header.metadata.All() {
		names = append(names, k)
	}
	if len(names) == 0 {
		return ""
	}
	return "  " + strings.Join(names, ", ")
}

// outcomeWidth is that of an outcome, or of an endpoint, with -v.
const outcomeWidth = 10

// tellOutcome tells how the call ended, with -v.
func (c *caller) tellOutcome(rsp *client.Response, err error, took time.Duration) {
	var st *status.Error
	switch {
	case err == nil:
		c.tell("< "+pad("200 OK", max(outcomeWidth, len(c.o.endpoint)))+"  "+shortType(rsp.ContentType)+" "+strconv.Itoa(len(rsp.Body))+" B", took)
	case errors.As(err, &st) && st.Remote:
		c.tell("< "+strconv.Itoa(int(st.Code))+" "+st.Code.String(), took)
	}
	c.tell("* total", time.Since(c.begun))
}

// shortType is a content type's usual name.
func shortType(contentType string) string {
	media, _, _ := strings.Cut(contentType, ";")
	if isJSONType(contentType) {
		return "json"
	}
	return dash(strings.TrimPrefix(media, "application/"))
}

// placeOf names a node and where it is.
func placeOf(n registry.Node) string {
	if n.Address == n.ID {
		return n.ID
	}
	return n.ID + " " + n.Address
}
