package commands

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/schema"
	"github.com/cb02dfca/micro/pkg/status"
)

// requestSchema is what the endpoint's requests are; nil where that is not known.
func (c *caller) requestSchema() *schema.Schema {
	if c.known == nil {
		return nil
	}
	return c.known.Request
}

// check holds a message against the endpoint's schema. what is "request" or "message 3".
func (c *caller) check(body []byte, what, unsent string) error {
	s := c.requestSchema()
	if s == nil || !c.o.validate || !c.o.input.typed() {
		return nil
	}
	if raw, ok := asJSON(c.o.input.form, body); ok && !json.Valid(body) {
		body = raw
	}
	problems := s.Check(body)
	if len(problems) == 0 {
		return nil
	}
	name := c.known.RequestType
	if name == "" {
		name = s.TypeName()
	}
	if c.hearsay {
		c.doubt(what, name, problems)
		return nil
	}
	f := usage("%s does not fit %s (%s); %s", what, c.o.endpoint, name, unsent)
	addProblems(f, problems)
	return f.hint("send it anyway", "--no-validate")
}

// doubt warns of a message that is sent all the same: a registry's record is not the last word on what its service takes.
func (c *caller) doubt(what, name string, problems []schema.Problem) {
	c.in.warn("warning: %s does not fit %s (%s) as the registry has it", what, c.o.endpoint, name)
	for _, line := range problemLines(problems) {
		c.in.warn("  %s", line)
	}
}

// maxProblems is how many problems are told.
const maxProblems = 8

func addProblems(f *failure, problems []schema.Problem) {
	for _, line := range problemLines(problems) {
		f.line("%s", line)
	}
}

func problemLines(problems []schema.Problem) []string {
	var rows [][]string
	for i, p := range problems {
		if i == maxProblems {
			break
		}
		text := p.Message
		if p.Hint != "" {
			text += ", " + p.Hint
		}
		rows = append(rows, []string{p.Path, text})
	}
	lines := align(rows, nil)
	if more := len(problems) - maxProblems; more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	return lines
}

// blame adds to a service's "bad request" what the schema says is missing from it: what a check lets pass, as the service
// reads it, may still be what it complains of.
func (c *caller) blame(err, explained error, body []byte) error {
	var f *failure
	var ce *client.Error
	var st *status.Error
	s := c.requestSchema()
	if s == nil || !errors.As(explained, &f) || !errors.As(err, &ce) || !errors.As(ce.Err, &st) || st.Code != status.InvalidArgument {
		return explained
	}
	var told []schema.Problem
	for _, p := range s.Warnings(body) {
		if !strings.Contains(st.Detail, p.Message) {
			told = append(told, p)
		}
	}
	addProblems(f, told)
	return explained
}
