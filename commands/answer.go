package commands

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/cb02dfca/micro/internal/terminal"
	"github.com/cb02dfca/micro/pkg/client"
)

// layout is how JSON stands on a terminal. In a pipe it is one line.
type layout uint8

const (
	pretty layout = iota // indented
	fitted               // on one line where it fits
)

// includedAnswer is the JSON form of an answer with --include.
type includedAnswer struct {
	Node    string            `json:"node"`
	Headers map[string]string `json:"headers"`
	Body    any               `json:"body"`
}

// answer is a call's answer in all its forms.
func (in *invocation) answer(rsp *client.Response, include bool) result {
	value, show := in.bodyForms(rsp.ContentType, rsp.Body, pretty)
	r := result{value: value, text: show, names: []string{rsp.Node.ID}}
	if !include {
		return r
	}
	headers, lines := map[string]string{}, []string{}
	add := func(k, v string) {
		headers[k] = v
		lines = append(lines, k+": "+v)
	}
	if rsp.ContentType != "" {
		add("content-type", rsp.ContentType)
	}
	for k, v := range rsp.Header.All() {
		add(k, v)
	}
	r.value = includedAnswer{rsp.Node.ID, headers, value}
	r.text = func(w io.Writer, c palette) error {
		for _, line := range lines {
			k, v, _ := strings.Cut(line, ": ")
			if _, err := io.WriteString(w, c.name(terminal.Line(k))+": "+terminal.Line(v)+"\n"); err != nil {
				return err
			}
		}
		if _, err := io.WriteString(w, "\n"); err != nil {
			return err
		}
		return show(w, c)
	}
	return r
}

// bodyForms gives a body's value for the JSON forms, and what writes it for people. contentType is empty where it is not
// known.
func (in *invocation) bodyForms(contentType string, body []byte, l layout) (value any, show func(io.Writer, palette) error) {
	value = in.bodyValue(contentType, body)
	if raw, ok := value.(json.RawMessage); ok && in.output != "raw" {
		return value, jsonText(in, raw, l)
	}
	return value, func(w io.Writer, _ palette) error { return in.writeRaw(w, body, l == fitted) }
}

// bodyValue is a body's JSON form: itself where it is JSON.
func (in *invocation) bodyValue(contentType string, body []byte) any {
	form := in.form(contentType)
	if raw, ok := asJSON(form, body); ok {
		return raw
	}
	if (contentType == "" || form != nil || isJSONType(contentType)) && json.Valid(body) {
		return json.RawMessage(body)
	}
	return textValue(body)
}

// textValue is the JSON form of what is no JSON: a string, of base64 where it is no text either; null for nothing.
func textValue(body []byte) any {
	switch {
	case len(body) == 0:
		return nil
	case utf8.Valid(body):
		return string(body)
	}
	return base64.StdEncoding.EncodeToString(body)
}

// writeRaw writes a body as it came: byte for byte in a pipe, made safe on a terminal. lines ends it with a line break,
// as a terminal does.
func (in *invocation) writeRaw(w io.Writer, body []byte, lines bool) error {
	text := string(body)
	if in.StdoutTTY {
		if !utf8.Valid(body) {
			in.warn("the answer is %d bytes that are no text: save them with > FILE", len(body))
			return nil
		}
		text = terminal.Safe(text)
	}
	if (in.StdoutTTY || lines) && text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	_, err := io.WriteString(w, text)
	return err
}

// jsonText writes JSON for people: on a terminal with colours.
func jsonText(in *invocation, raw json.RawMessage, l layout) func(io.Writer, palette) error {
	return func(w io.Writer, c palette) error {
		line, err := encodeJSON(raw, "")
		if err != nil {
			return err
		}
		if in.out.tty && (l == pretty || in.Width > 0 && utf8.RuneCount(line) > in.Width) {
			if line, err = encodeJSON(raw, "  "); err != nil {
				return err
			}
		}
		_, err = io.WriteString(w, c.json(line)+"\n")
		return err
	}
}

// json colours a JSON text: the names of fields, strings, and the rest of the scalars.
func (c palette) json(text []byte) string {
	if !c.on {
		return string(text)
	}
	var b strings.Builder
	for i := 0; i < len(text); {
		end := i + 1
		switch ch := text[i]; {
		case ch == '"':
			for text[end] != '"' {
				if text[end] == '\\' {
					end++
				}
				end++
			}
			end++
			if end < len(text) && text[end] == ':' {
				b.WriteString(c.name(string(text[i:end])))
			} else {
				b.WriteString(c.good(string(text[i:end])))
			}
		case strings.IndexByte("{}[]:, \n", ch) >= 0:
			b.WriteByte(ch)
		default:
			for end < len(text) && strings.IndexByte("}], \n", text[end]) < 0 {
				end++
			}
			b.WriteString(c.warn(string(text[i:end])))
		}
		i = end
	}
	return b.String()
}

// printItem writes one of several answers.
func (in *invocation) printItem(ctx context.Context, s *answerStream, contentType string, body []byte) error {
	value, show := in.bodyForms(contentType, body, fitted)
	return s.item(ctx, result{value: value, text: show, names: []string{}})
}
