package commands

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"

	"github.com/itchyny/gojq"
	"go.yaml.in/yaml/v3"

	"github.com/cb02dfca/micro/internal/terminal"
)

// encodeJSON gives v as JSON without escapes for HTML and without a line break at the end. A nil slice is an array.
func encodeJSON(v any, indent string) ([]byte, error) {
	if rv := reflect.ValueOf(v); rv.Kind() == reflect.Slice && rv.IsNil() && rv.Type().Elem().Kind() != reflect.Uint8 {
		return []byte("[]"), nil
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encoding the answer: %w", err)
	}
	return terminal.JSON(bytes.TrimRight(b.Bytes(), "\n")), nil
}

func (p *printer) json(v any, indent string) error {
	out, err := encodeJSON(v, indent)
	if err != nil {
		return err
	}
	_, err = p.w.Write(append(out, '\n'))
	return err
}

// lines writes each element of a slice as one line of JSON, and anything else as one.
func (p *printer) lines(v any) error {
	rv := reflect.ValueOf(v)
	if rv.Kind() != reflect.Slice || rv.Type().Elem().Kind() == reflect.Uint8 {
		return p.json(v, "")
	}
	for i := range rv.Len() {
		if err := p.json(rv.Index(i).Interface(), ""); err != nil {
			return err
		}
	}
	return nil
}

// yaml writes v's JSON form as YAML, its keys in the same order.
func (p *printer) yaml(v any) error {
	text, err := encodeJSON(v, "")
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	node, err := yamlNode(dec)
	if err != nil {
		return fmt.Errorf("encoding the answer: %w", err)
	}
	var b strings.Builder
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(node), enc.Close()); err != nil {
		return fmt.Errorf("encoding the answer: %w", err)
	}
	_, err = io.WriteString(p.w, terminal.Safe(b.String()))
	return err
}

// yamlNode reads one JSON value.
func yamlNode(dec *json.Decoder) (*yaml.Node, error) {
	tok, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch v := tok.(type) {
	case json.Delim:
		n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		if v == '[' {
			n = &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		}
		for dec.More() {
			child, err := yamlNode(dec)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, child)
		}
		if len(n.Content) == 0 {
			n.Style = yaml.FlowStyle
		}
		_, err = dec.Token()
		return n, err
	case json.Number:
		tag := "!!int"
		if strings.ContainsAny(v.String(), ".eE") {
			tag = "!!float"
		}
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: v.String()}, nil
	case bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: strconv.FormatBool(v)}, nil
	case string:
		return yamlString(v), nil
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}, nil
}

// yamlString puts what must not reach a terminal raw into double quotes, in which the escapes of terminal.Safe are YAML's
// own (YAML 1.2.2, section 5.7).
func yamlString(s string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
	if terminal.Safe(s) != s {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}

// query is a compiled jq expression.
type query struct {
	source string
	code   *gojq.Code
}

// compileQuery reads a jq expression; a wrong one is a failure of the command line.
func compileQuery(source string) (*query, error) {
	parsed, err := gojq.Parse(source)
	if err != nil {
		return nil, usage("jq expression %q: %s", source, err).because(err).hint("more", "micro help output")
	}
	code, err := gojq.Compile(parsed)
	if err != nil {
		return nil, usage("jq expression %q: %s", source, err).because(err).hint("more", "micro help output")
	}
	return &query{source, code}, nil
}

// run applies the expression to a JSON text and calls yield with each result.
func (q *query) run(ctx context.Context, text []byte, yield func(any) error) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var in any
	if err := dec.Decode(&in); err != nil {
		return fail(exitFailed, "the answer is not JSON, so a jq expression cannot read it").because(err)
	}
	for iter := q.code.RunWithContext(ctx, in); ; {
		v, ok := iter.Next()
		if !ok {
			return nil
		}
		if err, isErr := v.(error); isErr {
			var halt *gojq.HaltError
			if errors.As(err, &halt) && halt.Value() == nil {
				return nil
			}
			switch {
			case errors.Is(ctx.Err(), context.DeadlineExceeded):
				return fail(exitTimeout, "jq expression %q: the time ran out before it was done", q.source).because(err).
					hint("more time", "--timeout 30s")
			case ctx.Err() != nil:
				return ctx.Err()
			}
			return fail(exitFailed, "jq expression %q: %s", q.source, err).because(err)
		}
		if err := yield(v); err != nil {
			return err
		}
	}
}

// print writes the expression's results: strings raw, the rest as JSON, indented as -o says.
func (q *query) print(ctx context.Context, p *printer, value any) error {
	text, err := encodeJSON(value, "")
	if err != nil {
		return err
	}
	if p.format == "json" {
		return q.printArray(ctx, p, text)
	}
	indent := ""
	if p.tty && p.format != "jsonl" {
		indent = "  "
	}
	return q.run(ctx, text, func(v any) error {
		if s, ok := v.(string); ok && p.format != "jsonl" && p.format != "yaml" {
			return p.raw(s)
		}
		if p.format == "yaml" {
			return p.yaml(v)
		}
		return p.json(v, indent)
	})
}

// printArray keeps the promise of -o json, one valid document: a single result is itself, several are an array.
func (q *query) printArray(ctx context.Context, p *printer, text []byte) error {
	all := []any{}
	err := q.run(ctx, text, func(v any) error {
		all = append(all, v)
		return nil
	})
	switch {
	case err != nil:
		return err
	case len(all) == 1:
		return p.json(all[0], "  ")
	}
	return p.json(all, "  ")
}

// raw writes a string as it is in a pipe, and safe on a terminal.
func (p *printer) raw(s string) error {
	if p.tty {
		s = terminal.Safe(s)
	}
	_, err := io.WriteString(p.w, s+"\n")
	return err
}
