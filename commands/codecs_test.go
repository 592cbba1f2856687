//go:build unix

package commands_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/commands"
	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/codec/vom"
)

// TestRunSpeaksVOM: a service of run takes a body of VOM from call and stream, and answers in it.
func TestRunSpeaksVOM(t *testing.T) {
	t.Parallel()
	r := serve(t, "builtin:greeter")
	at := r.address()
	c := vom.New()
	for name, tc := range map[string]struct {
		endpoint string
		in       any
		want     string // the one field of the answer
	}{
		"call":   {"Say.Hello", struct{ Name string }{"x"}, "Hello x"},
		"stream": {"Say.Chat", struct{ Text string }{"x"}, "x"},
	} {
		t.Run(name, func(t *testing.T) {
			body, err := c.Append(nil, tc.in)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "body")
			if err := os.WriteFile(file, body, 0o600); err != nil {
				t.Fatal(err)
			}
			var stdout, stderr bytes.Buffer
			code := commands.Main(t.Context(), commands.Deps{
				Args:  []string{name, "--address", at, "greeter", tc.endpoint, "-d", "@" + file, "-H", "content-type:" + vom.ContentType, "-o", "raw"},
				Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr, Env: passedOnly, Now: time.Now, Backends: runBackends(r.registry, r.broker),
			})
			var got map[string]any
			if err := c.Unmarshal(stdout.Bytes(), &got); code != 0 || err != nil || got["Msg"] != tc.want && got["Text"] != tc.want {
				t.Errorf("exit code %d, %v, %v of %q\n%s", code, got, err, stdout.Bytes(), stderr.String())
			}
		})
	}
	if got, _, text := post(t, at, "Debug.Info", "{}"); got != 200 || !strings.Contains(text, vom.ContentType) {
		t.Errorf("the service does not tell that it speaks VOM: %s", text)
	}
}

// TestCallOthersRPC: a JSON-RPC server that somebody else has written is called by its address.
func TestCallOthersRPC(t *testing.T) {
	t.Parallel()
	at := testserver.JSONRPC(t)
	for _, tc := range []struct {
		args           []string
		code           int
		stdout, stderr string
	}{
		{[]string{"subtract", "minuend:=42", "subtrahend:=23"}, 0, "19\n", ""},
		{[]string{"subtract", "[42,23]"}, 0, "19\n", ""},
		{[]string{"Say.Hello", "name=x"}, 0, `{"msg":"Hello x"}` + "\n", ""},
		{[]string{"Say.Hello", "name=bad"}, 6, "", "409 Conflict: taken"},
		{[]string{"Say.Nope"}, 6, "", "404 Not Found: Method not found"},
	} {
		var stdout, stderr bytes.Buffer
		code := commands.Main(t.Context(), commands.Deps{
			Args:  append([]string{"call", "--address", at, "-H", "content-type:application/json; rpc=2.0", "calc"}, tc.args...),
			Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr, Env: passedOnly, Now: time.Now, Backends: commands.DefaultBackends(),
		})
		if code != tc.code || stdout.String() != tc.stdout || !strings.Contains(stderr.String(), tc.stderr) || tc.stderr == "" && stderr.Len() > 0 {
			t.Errorf("%q: exit code %d, %q, %q", tc.args, code, stdout.String(), stderr.String())
		}
	}
}
