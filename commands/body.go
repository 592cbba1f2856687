package commands

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"os"
	"strings"
	"time"

	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/schema"
)

// maxBody is the limit of a body: what every side takes unless it was told another. It is also what keeps an endless
// standard input from filling the memory.
const maxBody = 4 << 20

const contentJSON = "application/json"

// input is a body as the command line gives it: as it stands, as items, or on standard input. The zero input is "{}".
type input struct {
	what        string // for messages: "request body", "message"
	data        []byte
	items       []item
	given       bool // data or items were given: standard input is not touched
	stdin       bool // the body is read from standard input
	contentType string
	form        codec.Codec // in which a body is sent that was given as JSON; nil: as it stands
	command     string      // the command line up to the body, for hints
	unsent      string      // what to say of a wrong body; empty is "nothing was sent"
}

// readInput finds out where the body comes from: the arguments, -d, or standard input. It reads files, and not yet
// standard input.
func (in *invocation) readInput(what string, words []string, header headers) (input, error) {
	i := input{what: what, contentType: or(header.contentType, contentJSON), form: in.form(header.contentType)}
	if isPlainRPC(i.contentType) {
		i.contentType = contentJSON
	}
	i.command = spelt([]string{in.cmd.name})
	for _, a := range in.args[:len(in.args)-len(words)] {
		i.command += " " + shellQuote(a)
	}
	if in.flags.IsSet("data") {
		return i, i.fromFlag(in.flags.String("data"), words)
	}
	switch {
	case len(words) == 0:
		i.stdin = in.StdinData
		return i, nil
	case len(words) == 1 && words[0] == "-":
		i.stdin = true
		return i, nil
	case strings.HasPrefix(words[0], "'"):
		return i, i.quoted()
	case looksLikeBody(words[0]) && len(words) > 1:
		return i, usage("one body, or items, and not both: %q follows %q", clipText(words[1]), clipText(words[0])).
			hint("more", "micro help items")
	case looksLikeBody(words[0]):
		i.data, i.given = []byte(words[0]), true
		return i, i.check()
	}
	for _, word := range words {
		it, err := parseItem(word)
		if err != nil {
			return i, err
		}
		i.items = append(i.items, it)
	}
	i.given = true
	return i, nil
}

// fromFlag reads -d.
func (i *input) fromFlag(value string, words []string) error {
	if len(words) > 0 {
		return usage("a body is given twice: by -d, and as %q", clipText(words[0]))
	}
	name, file := strings.CutPrefix(value, "@")
	switch {
	case value == "@-":
		i.stdin = true
		return nil
	case !file:
		i.data, i.given = []byte(value), true
		return i.check()
	}
	data, err := readFile("flag -d", name)
	if err != nil {
		return err
	}
	i.data, i.given = i.trim(data), true
	return i.check()
}

// trim takes the white space off that editors and echo leave around JSON.
func (i *input) trim(data []byte) []byte {
	if isJSONType(i.contentType) || i.form != nil && json.Valid(data) {
		return bytes.TrimSpace(data)
	}
	return data
}

// readFile reads a file that a body, or a field of one, comes from.
func readFile(where, name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, usage("%s: %s", where, err).because(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxBody+1))
	switch {
	case err != nil:
		return nil, usage("%s: %s", where, err).because(err)
	case len(data) > maxBody:
		return nil, usage("%s: %s is larger than 4 MiB, the most that a message carries; nothing was sent", where, name)
	}
	return data, nil
}

// looksLikeBody goes by the first character, and takes whatever is JSON: null, true.
func looksLikeBody(word string) bool {
	if word == "" || strings.ContainsRune(`{["`, rune(word[0])) || json.Valid([]byte(word)) {
		return true
	}
	if c := word[0]; c != '-' && (c < '0' || c > '9') {
		return false
	}
	_, err := parseItem(word) // 2nd=x
	return err != nil
}

// check holds the body against its limit and, where it is to be JSON, against that.
func (i *input) check() error {
	if len(i.data) > maxBody {
		return usage("%s is larger than 4 MiB, the most that a message carries; nothing was sent", i.what)
	}
	if !i.typed() || json.Valid(i.data) {
		return nil
	}
	if len(bytes.TrimSpace(i.data)) == 0 {
		return usage("%s is not JSON: it is empty", i.what).hint("an empty one", "'{}'")
	}
	if _, ok := asJSON(i.form, i.data); ok {
		return nil
	}
	if i.data[0] == '\'' {
		return i.quoted()
	}
	f := usage("%s is not JSON: %s; %s", i.what, jsonReason(i.data), or(i.unsent, "nothing was sent"))
	if c := i.data[0]; c == '{' || c == '[' {
		return f.hint("without quotes", i.command+" name=x")
	}
	return f.hint("as it is", "-H content-type:application/octet-stream")
}

// quoted is the failure of a shell that knows no single quotes: cmd.exe passes them on.
func (i *input) quoted() error {
	return usage("%s is not JSON: it starts with a quote character (')", i.what).
		line("your shell passed the quotes on. Without quotes: %s name=x", i.command)
}

// jsonReason says what is wrong with a text that is no JSON, and where.
func jsonReason(data []byte) string {
	err := json.Unmarshal(data, new(json.RawMessage))
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) && syntax.Offset < int64(len(data)) {
		return fmt.Sprintf("%s (byte %d)", err, syntax.Offset)
	}
	return err.Error()
}

func isJSONType(contentType string) bool {
	media, _, err := mime.ParseMediaType(contentType)
	return err == nil && (media == contentJSON || strings.HasSuffix(media, "+json"))
}

// body gives the whole body, and reads standard input for it where that is asked for. s types the items; it may be nil.
func (in *invocation) body(ctx context.Context, i input, s *schema.Schema) ([]byte, error) {
	switch {
	case i.items != nil:
		return buildBody(i.items, s)
	case i.stdin:
		data, err := in.readStdin(ctx, i.what)
		if err != nil {
			return nil, err
		}
		if i.data = i.trim(data); len(bytes.TrimSpace(data)) == 0 {
			return []byte("{}"), nil
		}
		return i.data, i.check()
	case !i.given:
		return []byte("{}"), nil
	}
	return i.data, nil
}

// readStdin reads standard input to its end, and says so where it stays silent: a pipe that nobody writes to looks as if
// the service did not answer.
func (in *invocation) readStdin(ctx context.Context, what string) ([]byte, error) {
	type outcome struct {
		data []byte
		err  error
	}
	got := make(chan outcome, 1)
	r := in.patientStdin(what)
	go func() { // left behind where ctx ends first: nothing can take a read of a terminal back
		data, err := io.ReadAll(io.LimitReader(r, maxBody+1))
		got <- outcome{data, err}
	}()
	select {
	case <-ctx.Done():
		r.timer.Stop()
		return nil, ctx.Err()
	case o := <-got:
		switch {
		case o.err != nil:
			return nil, fail(exitFailed, "reading %s from standard input: %s", what, lastCause(o.err)).because(o.err)
		case len(o.data) > maxBody:
			return nil, usage("%s is larger than 4 MiB, the most that a message carries; nothing was sent", what)
		}
		return o.data, nil
	}
}

// patientReader is standard input with a note for whoever waits for nothing: for a while from the first Read on.
type patientReader struct {
	io.Reader
	timer *time.Timer
	begun bool
}

func (in *invocation) patientStdin(what string) *patientReader {
	return &patientReader{Reader: in.Stdin, timer: time.AfterFunc(math.MaxInt64, func() {
		in.warn("reading the %s from stdin (use -d '{}' for an empty one)", what)
	})}
}

func (r *patientReader) Read(p []byte) (int, error) {
	if !r.begun {
		r.begun = true
		r.timer.Reset(patience)
	}
	n, err := r.Reader.Read(p)
	r.timer.Stop()
	return n, err
}

// clipText cuts what is quoted in a message.
func clipText(s string) string {
	if runes := []rune(s); len(runes) > 40 {
		return string(runes[:39]) + "…"
	}
	return s
}
