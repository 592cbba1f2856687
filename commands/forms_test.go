package commands_test

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/commands"
	"github.com/cb02dfca/micro/pkg/codec/bson"
	"github.com/cb02dfca/micro/pkg/codec/bsonrpc"
	"github.com/cb02dfca/micro/pkg/codec/json"
	"github.com/cb02dfca/micro/pkg/codec/jsonrpc"
	"github.com/cb02dfca/micro/pkg/codec/msgpack"
	"github.com/cb02dfca/micro/pkg/server"
)

// parcel has fields that differ between JSON and binary forms.
type parcel struct {
	Label string    `json:"label"`
	Data  []byte    `json:"data,omitempty"`
	Sent  time.Time `json:"sent,omitzero"`
	Big   uint64    `json:"big,omitempty"`
}

// sorter starts a service that speaks what the services of run do. Its answers tell the content type that was spoken.
func (w *world) sorter(t *testing.T, id string) {
	t.Helper()
	s, err := server.New("sorter", server.NodeID(id), server.Codecs(commands.DefaultBackends().Codecs))
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(
		server.Handle(s, "Parcel.Echo", func(_ context.Context, p *parcel) (*parcel, error) { return p, nil }),
		server.Handle(s, "Parcel.Data", func(_ context.Context, p *parcel) (*[]byte, error) { return &p.Data, nil }),
		server.HandleBidi(s, "Parcel.Each", func(_ context.Context, st *server.Stream[parcel, parcel]) error {
			for p, err := range st.All() {
				if err != nil {
					return err
				}
				p.Label = st.Call().ContentType() + " " + p.Label
				if err := st.Send(p); err != nil {
					return err
				}
			}
			return nil
		}),
	)
	if err != nil {
		t.Fatal(err)
	}
	w.serve(t, s, id)
	w.register(t, node(id, "sorter", "1.0.0", id+":1", 0), "Parcel.Echo", "Parcel.Data", "Parcel.Each")
}

// encoded is a parcel in a form, as a file may have it.
func encoded(t *testing.T, contentType string, v any) string {
	t.Helper()
	c, err := commands.DefaultBackends().Forms.For(contentType)
	if err != nil {
		t.Fatal(err)
	}
	data, err := c.Append(nil, v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestBodyForms types bodies as JSON, sends them in other forms, and shows the answers as JSON.
func TestBodyForms(t *testing.T) {
	t.Parallel()
	for _, contentType := range []string{msgpack.ContentType, msgpack.Registered, bson.ContentType} {
		w := newWorld(t)
		w.sorter(t, "sorter-1")
		ready := writeFile(t, encoded(t, contentType, &parcel{Label: "\n"}))
		header := []string{"-H", "content-type:" + contentType}
		for _, c := range []struct{ line, want string }{
			{"call sorter Parcel.Echo label=a data=AP8= sent=2026-11-23T10:00:00Z", `{"label":"a","data":"AP8=","sent":"2026-11-23T10:00:00Z"}` + "\n"},
			{"call sorter Parcel.Echo", `{"label":""}` + "\n"},
			{"call sorter Parcel.Echo label=a -i -q .headers", `{"content-type":"` + contentType + `"}` + "\n"},
			{"call sorter Parcel.Echo label=a -o raw", encoded(t, contentType, &parcel{Label: "a"})},
			{"call sorter Parcel.Echo -d @" + ready, `{"label":"\n"}` + "\n"},
			{"call sorter Parcel.Echo label=a --all -q .[].body.label", "a\n"},
			{"call sorter Parcel.Data data=AP8=", `"AP8="` + "\n"},
			{"call sorter Parcel.Each label=a", `{"label":"` + contentType + ` a"}` + "\n"},
			{"stream sorter Parcel.Each label=a -q .label", contentType + " a\n"},
		} {
			got := w.run(t, pipe, nil, append(strings.Fields(c.line), header...)...)
			// A map's keys are in their order in the JSON of a form; those of the one with several fields are compared so.
			if got.code != 0 || sortedJSON(got.stdout) != sortedJSON(c.want) {
				t.Errorf("%s %s: exit %d, %q, want %q; %s", c.line, contentType, got.code, got.stdout, c.want, got.stderr)
			}
		}
		for _, c := range []struct{ line, want string }{
			{"call sorter Parcel.Echo lable=a", "error: request does not fit Parcel.Echo (parcel); nothing was sent\n"},
			{"call sorter Parcel.Echo lable=a --no-validate", "error: sorter Parcel.Echo: 400 Bad Request: request does not decode: codec/"},
			{"call sorter Parcel.Echo -d {label:a}", "error: request body is not JSON: invalid character 'l'"},
			{"call sorter Parcel.Each lable=a --no-validate", "error: sorter Parcel.Each: 400 Bad Request: request does not decode: codec/"},
		} {
			got := w.run(t, pipe, nil, append(strings.Fields(c.line), header...)...)
			if got.code == 0 || got.stdout != "" || !strings.HasPrefix(got.stderr, c.want) {
				t.Errorf("%s %s: exit %d, %q, %q, want %q", c.line, contentType, got.code, got.stdout, got.stderr, c.want)
			}
		}
	}
}

// TestRPCForms: in an RPC format bodies are typed, shown and refused as without it; what is shown is the value alone.
func TestRPCForms(t *testing.T) {
	t.Parallel()
	for contentType, inner := range map[string]string{jsonrpc.ContentType: json.ContentType, bsonrpc.ContentType: bson.ContentType} {
		w := newWorld(t)
		w.sorter(t, "sorter-1")
		for _, c := range []struct{ line, want, fault string }{
			{"call sorter Parcel.Echo label=a", `{"label":"a"}` + "\n", ""},
			{"call sorter Parcel.Echo", `{"label":""}` + "\n", ""},
			{"call sorter Parcel.Echo label=a -i -q .headers", `{"content-type":"` + inner + `"}` + "\n", ""},
			{"call sorter Parcel.Echo label=a -o raw", encoded(t, contentType, &parcel{Label: "a"}), ""},
			{"call sorter Parcel.Echo label=a --all -q .[].body.label", "a\n", ""},
			{"call sorter Parcel.Data data=AP8=", `"AP8="` + "\n", ""},
			{"call sorter Parcel.Echo lable=a", "", "error: request does not fit Parcel.Echo (parcel); nothing was sent\n"},
			{"call sorter Parcel.Echo lable=a --no-validate", "", "error: sorter Parcel.Echo: 400 Bad Request: request does not decode: codec/"},
			{"call sorter Parcel.Each label=a", "", "error: stream of sorter Parcel.Each: " + contentType + " is for calls: open the stream in " + inner + "\n"},
			{"stream sorter Parcel.Each label=a", "", "error: stream of sorter Parcel.Each: " + contentType + " is for calls: open the stream in " + inner + "\n"},
			{"call sorter Parcel.Ecko label=a --no-validate", "", "error: sorter latest has no endpoint \"Parcel.Ecko\"\n"},
		} {
			got := w.run(t, pipe, nil, append(strings.Fields(c.line), "-H", "content-type:"+contentType)...)
			if got.stdout != c.want || !strings.HasPrefix(got.stderr, c.fault) || (got.code == 0) != (c.fault == "") {
				t.Errorf("%s %s: exit %d, %q, %q, want %q, %q", c.line, contentType, got.code, got.stdout, got.stderr, c.want, c.fault)
			}
		}
	}
}

// sortedJSON puts the fields of the one answer that has several in the order of their names.
func sortedJSON(text string) string {
	return strings.Replace(text, `{"label":"a","data":"AP8=","sent"`, `{"data":"AP8=","label":"a","sent"`, 1)
}

// TestFormThatCannot: what a form has no room for is told before anything is sent.
func TestFormThatCannot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.sorter(t, "sorter-1")
	for _, line := range []string{"call sorter Parcel.Echo big:=18446744073709551615", "call sorter Parcel.Echo big:=18446744073709551615 --all", "stream sorter Parcel.Each big:=18446744073709551615"} {
		got := w.run(t, pipe, nil, append(strings.Fields(line), "-H", "content-type:"+bson.ContentType)...)
		if got.code != 2 || got.stdout != "" || !strings.HasPrefix(got.stderr, "error: request body cannot be sent as bson: 18446744073709551615 is above the largest integer, an int64; nothing was sent\n") {
			t.Errorf("%s: exit %d, %q, %q", line, got.code, got.stdout, got.stderr)
		}
	}
}

// TestLineThatCannot: what comes before such a line is published.
func TestLineThatCannot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	box := w.subscribers(t, "topic", 1)
	got := w.feed(t, strings.NewReader("{}\n18446744073709551615\n{}"), pipe, "publish", "topic", "-l", "-H", "content-type:"+bson.ContentType)
	if got.code != 2 || !strings.HasPrefix(got.stderr, "error: line 2 cannot be sent as bson: 18446744073709551615 is above the largest integer, an int64; it was not sent\n") || box.String() != encoded(t, bson.ContentType, struct{}{}) {
		t.Errorf("exit %d, %q, %q; there came %q", got.code, got.stdout, got.stderr, box)
	}
}

// TestFormsOfMessages publishes and prints messages in other forms.
func TestFormsOfMessages(t *testing.T) {
	t.Parallel()
	for _, contentType := range []string{msgpack.ContentType, bson.ContentType} {
		w := newWorld(t)
		box := w.subscribers(t, "topic", 1)
		l := w.subscribing(t, pipe, "topic", "-n", "2", "-q", ".body")
		got := w.run(t, pipe, nil, "publish", "topic", `{"n":[1,2.5]}`, "-H", "content-type:"+contentType)
		if got.code != 0 || !strings.HasSuffix(got.stdout, " ({\"n\":[1,2.5]})  -> 2 subscribers\n") {
			t.Errorf("%s: exit %d, %q, %q", contentType, got.code, got.stdout, got.stderr)
		}
		got = w.feed(t, strings.NewReader("\"x\"\n"), pipe, "publish", "topic", "-l", "-H", "content-type:"+contentType)
		if got.code != 0 {
			t.Errorf("%s: exit %d, %q", contentType, got.code, got.stderr)
		}
		if code := l.end(t); code != 0 || l.stdout.String() != "{\"n\":[1,2.5]}\nx\n" {
			t.Errorf("%s: exit %d, %q, %q", contentType, code, l.stdout, l.stderr)
		}
		if want := encoded(t, contentType, map[string]any{"n": []any{1, 2.5}}) + "|" + encoded(t, contentType, "x"); box.String() != want {
			t.Errorf("%s: got %s, want %s", contentType, base64.StdEncoding.EncodeToString([]byte(box.String())), base64.StdEncoding.EncodeToString([]byte(want)))
		}
	}
}
