package commands

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"

	"github.com/cb02dfca/micro/internal/terminal"
	"github.com/cb02dfca/micro/pkg/server"
)

// exampleValue is the JSON form of an example: two commands that do the same, and the body.
type exampleValue struct {
	Endpoint string          `json:"endpoint"`
	Items    string          `json:"items,omitempty"` // the command with items
	Command  string          `json:"command"`         // the command with the body
	Body     json.RawMessage `json:"body"`
}

// printExamples prints commands that call each endpoint of the newest version.
func (in *invocation) printExamples(ctx context.Context, d *description) error {
	values, names := []exampleValue{}, []string{}
	for _, e := range d.Versions[len(d.Versions)-1].Endpoints {
		values, names = append(values, exampleOf(d.Service, e)), append(names, e.Name)
	}
	return in.print(ctx, result{value: values, names: names, text: func(w io.Writer, _ palette) error {
		var b strings.Builder
		for _, v := range values {
			if v.Items != "" {
				b.WriteString(terminal.Line(v.Items) + "\n")
			}
			b.WriteString(terminal.Line(v.Command) + "\n")
		}
		_, err := io.WriteString(w, b.String())
		return err
	}})
}

func exampleOf(service string, e server.Endpoint) exampleValue {
	body := json.RawMessage("{}")
	if e.Request != nil {
		body = e.Request.Example()
	}
	v := exampleValue{Endpoint: e.Name, Body: body}
	if e.Kind == server.ClientStream || e.Kind == server.Bidi || e.Kind == recordedStream {
		v.Command = "echo " + shellQuote(string(body)) + " | micro stream " + shellQuote(service) + " " + shellQuote(e.Name)
		return v
	}
	verb := "micro call "
	if e.Kind == server.ServerStream {
		verb = "micro stream "
	}
	head := verb + shellQuote(service) + " " + shellQuote(e.Name)
	v.Command = head + " " + shellQuote(string(body))
	if items, ok := itemsOf(body); ok {
		v.Items = strings.TrimRight(head+" "+strings.Join(items, " "), " ")
	}
	return v
}

// itemsOf writes an object's fields as items: name=x for text, times:=3 for the rest.
func itemsOf(body []byte) (items []string, ok bool) {
	dec := json.NewDecoder(bytes.NewReader(body))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, false
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, false
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return nil, false
		}
		name, _ := key.(string)
		if strings.ContainsAny(name, "=:@[].") || name == "" {
			return nil, false // an item could not name it
		}
		var s string
		if json.Unmarshal(raw, &s) == nil && len(raw) > 0 && raw[0] == '"' {
			items = append(items, shellQuote(name+"="+s))
			continue
		}
		items = append(items, shellQuote(name+":="+string(raw)))
	}
	return items, len(items) > 0
}

// shellQuote writes a word as a POSIX shell reads it back: POSIX.1-2024, Shell Command Language, 2.2.2.
func shellQuote(s string) string {
	safe := s != ""
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("_-./:=@%+,", r) {
			safe = false
			break
		}
	}
	if safe {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
