package http_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	nethttp "net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport/http"
)

// captured is what one side has sent, until the other sent something.
type captured struct {
	client bool
	data   []byte
}

var dumped = regexp.MustCompile(`^[0-9a-f]{4}  ((?:[0-9a-f]{2} )+)`)

// readCapture reads a captured TCP connection, of which each line of HTTP is shown with its end, other text as it is, and bytes in hexadecimal.
func readCapture(t *testing.T, file string) []captured {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var list []captured
	streams := 0
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "====="):
			if streams++; streams > 1 {
				return list // of a client that went on to another
			}
		case strings.HasPrefix(line, "--- "):
			list = append(list, captured{client: strings.HasPrefix(line, "--- client")})
		case len(list) > 0 && len(line) > 2:
			last := &list[len(list)-1]
			last.data = append(last.data, unshown(t, line[3:])...)
		}
	}
	return list
}

// unshown gives what a line of a capture stands for.
func unshown(t *testing.T, line string) []byte {
	if m := dumped.FindStringSubmatch(line); m != nil {
		data, err := hex.DecodeString(strings.ReplaceAll(m[1], " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	if head, ok := strings.CutSuffix(line, `\r\n`); ok {
		return []byte(head + "\r\n")
	}
	return []byte(line + "\n")
}

// message is an HTTP message, in either direction.
type message struct {
	header nethttp.Header
	body   []byte
}

// parseMessages takes what a side has sent apart. The line of a body may have no end of its own.
func parseMessages(t *testing.T, client bool, data []byte) (list []message) {
	t.Helper()
	in := bufio.NewReader(bytes.NewReader(data))
	for {
		if next, _ := in.Peek(1); string(next) == "\n" {
			_, _ = in.Discard(1)
		}
		if _, err := in.Peek(1); errors.Is(err, io.EOF) {
			return list
		}
		m, err := readMessage(in, client)
		if err != nil {
			t.Fatalf("the capture: %v in %q", err, data)
		}
		list = append(list, m)
	}
}

// sent gives what a client has sent, without the end that the line of its last body has in the capture alone.
func sent(data []byte) []byte {
	bare := bytes.TrimSuffix(data, []byte("\n"))
	for in := bufio.NewReader(bytes.NewReader(bare)); ; {
		if _, err := in.Peek(1); errors.Is(err, io.EOF) {
			return bare
		}
		if _, err := readMessage(in, true); err != nil {
			return data
		}
	}
}

func readMessage(in *bufio.Reader, client bool) (message, error) {
	var header nethttp.Header
	var from io.ReadCloser
	if client {
		r, err := nethttp.ReadRequest(in)
		if err != nil {
			return message{}, err
		}
		header, from = r.Header, r.Body
	} else {
		r, err := nethttp.ReadResponse(in, nil)
		if err != nil {
			return message{}, err
		}
		header, from = r.Header, r.Body
		if r.StatusCode != nethttp.StatusOK {
			return message{}, errors.New(r.Status)
		}
	}
	defer from.Close()
	body, err := io.ReadAll(from)
	return message{header, body}, err
}

// failures is what the calls and streams of the captures that failed are answered with here, by the file's name without its version: go-micro's servers
// answer in bare text, or not at all.
var failures = map[string]status.Error{
	"err-badep":    {ID: "greeter", Code: 404, Detail: `greeter has no endpoint "Nope"`},
	"err-nosvc":    {ID: "greeter", Code: 404, Detail: `greeter has no endpoint "Nope.Nope"`},
	"err-nomethod": {ID: "greeter", Code: 404, Detail: `greeter has no endpoint "Say.Nope"`},
	"err-plain":    {ID: "greeter", Code: 500, Detail: "the handler failed"}, // what a handler has not made public stays in the log
	"err-micro":    {ID: "greeter", Code: 400, Detail: "bad name: xx"},
	"err-panic":    {ID: "greeter", Code: 500, Detail: "the handler panicked"},
	"timeout":      {ID: "greeter", Code: 408}, // whose text is the handler's, or the server's where that one is not quick enough with it
	"stream-fail":  {ID: "greeter", Code: 403, Detail: "stream refused"},
}

// TestCaptures: what real go-micro clients of v1, v2 and v5 have sent is answered as their servers did, field by field, but for
// those defects of theirs that failures and the comments tell of.
func TestCaptures(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/mucp/*.stream.txt")
	if err != nil || len(files) < 40 {
		t.Fatalf("%d captures, %v", len(files), err)
	}
	for _, version := range []string{"v1", "v2", "v5"} {
		address := greeter(t, version, http.Options{}, nil)
		for _, file := range files {
			name := strings.TrimSuffix(filepath.Base(file), ".stream.txt")
			if !strings.HasPrefix(name, version) {
				continue
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				_, what, _ := strings.Cut(name, "-")
				replayed(t, address, readCapture(t, file), what)
			})
		}
	}
}

// replayed sends what a client has sent, and compares what comes with what came.
func replayed(t *testing.T, address string, list []captured, what string) {
	nc, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if err := nc.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(nc)
	var asked message
	for i, part := range list {
		if part.client {
			requests := parseMessages(t, true, part.data)
			asked = requests[len(requests)-1]
			if _, err := nc.Write(sent(part.data)); err != nil {
				t.Fatal(err)
			}
			switch {
			case i < len(list)-1 || asked.header.Get("Micro-Error") != "":
			case what == "timeout" && asked.header.Get("Timeout") == "5000000000": // v5 sends that of an attempt: its client has not waited so long
				answered(t, in, asked, message{nethttp.Header{"Content-Type": {"application/json"}}, []byte(`{"msg":"slow","seq":2500}`)}, what, 0)
			default: // their server has not answered
				answered(t, in, asked, message{header: nethttp.Header{"X-Micro-Error": {""}}}, what, 0)
			}
			continue
		}
		for n, want := range parseMessages(t, false, part.data) {
			answered(t, in, asked, want, what, n)
		}
	}
	_ = nc.(*net.TCPConn).CloseWrite()
	if _, err := in.Peek(1); err == nil && asked.header.Get("Micro-Error") == "EOS" {
		// Who waits for it after an end of his own gets the stream's. go-micro's clients have closed the connection.
		if rest, err := readMessage(in, false); err != nil || rest.header.Get("Micro-Error") != "EOS" {
			t.Errorf("after the last answer came %v, %v", rest, err)
		}
	}
	if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
		t.Errorf("after the last answer came %q, %v", rest, err)
	}
}

// answered reads the nth answer to asked, and compares it with that of go-micro's server.
func answered(t *testing.T, in *bufio.Reader, asked, want message, what string, n int) {
	t.Helper()
	got, err := readMessage(in, false)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"Content-Type"}
	if asked.header.Get("Micro-Stream") != "" {
		names = append(names, "Micro-Stream", "Micro-Service", "Micro-Endpoint", "Micro-Method", "Accept", "Timeout")
	}
	if want.header.Get("Micro-Error") == "EOS" {
		if got.header.Get("Micro-Error") != "EOS" || got.header.Get("X-Micro-Error") != "EOS" || len(got.body) > 0 {
			t.Fatalf("%v %q, want the end of the stream", got.header, got.body)
		}
		names = names[1:]
	} else if want.header["X-Micro-Error"] != nil {
		failure, ok := failures[what]
		e := status.Parse(got.header.Get("Micro-Error"))
		if !ok || e == nil || e.ID != failure.ID || e.Code != failure.Code || failure.Detail != "" && e.Detail != failure.Detail || len(got.body) > 0 ||
			got.header.Get("X-Micro-Error") != got.header.Get("Micro-Error") {
			t.Fatalf("failed with %+v, %q, want %+v", e, got.body, failure)
		}
		names = names[1:]
	} else if got.header.Get("Micro-Error") != "" {
		t.Fatalf("failed: %v", got.header)
	}
	for _, name := range names {
		if g, w := got.header.Get(name), want.header.Get(name); g != w {
			t.Errorf("%s: %q, want %q", name, g, w)
		}
	}
	// v5's servers give the id of the connection's first request, and not always the older name.
	for _, name := range []string{"Micro-Id", "X-Micro-Id"} {
		if g, w := got.header.Get(name), asked.header.Get("Micro-Id"); g != w {
			t.Errorf("%s: %q, want %q", name, g, w)
		}
	}
	compareBodies(t, got, want, what, n)
}

// compareBodies compares the bodies of two answers. Both of its forms of JSON stand for the same number of 64 bits.
func compareBodies(t *testing.T, got, want message, what string, n int) {
	t.Helper()
	body := string(want.body)
	if strings.HasPrefix(what, "sstream") && body != "" {
		// v2's and v5's servers send the last message of a fast stream in place of each.
		body = strings.Replace(`{"msg":"item John","seq":N}`, "N", string(rune('1'+n)), 1)
	}
	if body == "" || len(got.body) == 0 {
		if string(got.body) != body {
			t.Errorf("body %q, want %q", got.body, body)
		}
		return
	}
	if strings.Contains(want.header.Get("Content-Type"), "proto") {
		if what == "call-protorpc" {
			// Its header: v5's servers leave it empty, v1's write fields that have their zero value.
			body, got.body = afterHeader(body), []byte(afterHeader(string(got.body)))
		}
		g, w := dynamicpb.NewMessage(reply), dynamicpb.NewMessage(reply)
		if err := errors.Join(proto.Unmarshal(got.body, g), proto.Unmarshal([]byte(body), w)); err != nil || !proto.Equal(g, w) {
			t.Errorf("body %q, want %q: %v", got.body, body, err)
		}
		return
	}
	number := regexp.MustCompile(`"seq":"(\d+)"`)
	var g, w any
	if err := json.Unmarshal(number.ReplaceAll(got.body, []byte(`"seq":$1`)), &g); err != nil {
		t.Fatalf("%v in %q", err, got.body)
	}
	if err := json.Unmarshal([]byte(body), &w); err != nil {
		t.Fatalf("the capture: %v in %q", err, body)
	}
	a, _ := json.Marshal(g)
	b, _ := json.Marshal(w)
	if !bytes.Equal(a, b) {
		t.Errorf("body %s, want %s", a, b)
	}
}

// afterHeader gives the value in a message of PROTO-RPC, behind the header and the value's length.
func afterHeader(body string) string {
	if len(body) < 8 {
		return body
	}
	return body[8+int(binary.BigEndian.Uint32([]byte(body))):]
}
