package commands_test

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cb02dfca/micro/commands"
	"github.com/cb02dfca/micro/internal/testserver"
)

// grpcPeer starts a server of gRPC-Go with reflection, in a process of its own, and gives its address.
func grpcPeer(t *testing.T) string {
	t.Helper()
	program, err := testserver.Build("grpc", ".")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, program, "serve", "127.0.0.1:0")
	stdin, errIn := cmd.StdinPipe()
	stdout, errOut := cmd.StdoutPipe()
	if errIn != nil || errOut != nil {
		t.Fatal(errIn, errOut)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = stdin.Close()
		_ = cmd.Wait()
	})
	addr, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(addr)
}

// TestGRPCPeer: the program with what is in it describes, calls and streams to gRPC-Go, as it finds it by URL, in a registry, or by a
// .proto file.
func TestGRPCPeer(t *testing.T) {
	t.Parallel()
	at := grpcPeer(t)
	w := newWorld(t)
	w.register(t, node("say-1", "sayer", "1", at, 0, "protocol", "grpc", "transport", "grpc"))
	proto := filepath.Join("..", "servers", "grpc", "say", "say.proto")
	if _, err := os.Stat(proto); err != nil {
		t.Fatal(err)
	}
	methods := "pkg.Say/Hello\npkg.Say/List\npkg.Say/Sum\npkg.Say/Chat\n"
	for _, c := range []struct {
		line, stdin, want string
		code              int
	}{
		{line: "describe grpc://AT -o name", want: methods},
		{line: "describe grpc://AT Say -o name", want: methods},
		{line: "describe sayer -o name", want: methods},
		{line: `call grpc://AT pkg.Say Hello "x"`, want: "\"Hello x\"\n"},
		{line: `call grpc://AT/pkg.Say/Hello "x"`, want: "\"Hello x\"\n"},
		{line: `call grpc://AT pkg.Say.Hello "x" --proto PROTO`, want: "\"Hello x\"\n"},
		{line: `call grpc://AT pkg.Say.Hello "x" -d {} `, code: 2},
		{line: `call sayer Say.Hello "x"`, want: "\"Hello x\"\n"},
		{line: `call sayer pkg.Say/Hello "x" --proto PROTO`, want: "\"Hello x\"\n"},
		{line: `call sayer Say.Helo "x"`, code: 3},
		{line: `call grpc://AT Say.Hello "code 5 not here"`, code: 6},
		{line: "stream grpc://AT pkg.Say/List 2", want: "\"item 0\"\n\"item 1\"\n"},
		{line: "stream sayer Say.List 2", want: "\"item 0\"\n\"item 1\"\n"},
		{line: "stream grpc://AT Say.Sum", stdin: "1 2 3", want: "\"6\"\n"},
		{line: "stream grpc://AT Say.Chat", stdin: `"a" "b"`, want: "\"Hello a\"\n\"Hello b\"\n"},
		{line: "health grpc://AT -o name", code: 0, want: "grpc://AT\n"},
		{line: "health grpc://AT -q .[].status", want: "ok\n"},
		{line: "health grpc://AT/pkg.None -q .[].detail", code: 8},
		{line: "health grpc://AT pkg.Say more", code: 2},
		{line: "health grpc://127.0.0.1:1", code: 8},
		{line: "health sayer -q .[].status", want: "ok\n"},
		{line: "health sayer more", code: 2},
		{line: "stats grpc://AT", code: 3},
		{line: "stats grpc://AT/pkg.Say", code: 2},
		{line: "stats grpc://127.0.0.1:1", code: 4},
		{line: "list grpc://AT -o name", want: "pkg.Say\n"},
		{line: "list services grpc://AT -q .[].endpoints", want: "4\n"},
		{line: "services grpc://AT p*.Say -o name", want: "pkg.Say\n"},
		{line: "list endpoints grpc://AT -o name", want: "pkg.Say/Chat\npkg.Say/Hello\npkg.Say/List\npkg.Say/Sum\n"},
		{line: "list endpoints grpc://AT -q .[0].kind", want: "bidi\n"},
		{line: "list services grpc://AT pkg.None", code: 3},
		{line: "list services grpc://AT a b", code: 2},
		{line: "list nodes grpc://AT", code: 2},
		{line: "list grpc://AT --watch", code: 2},
		{line: "list grpc://127.0.0.1:1", code: 4},
		{line: "list grpc://", code: 2},
		{line: "call grpc://AT grpc.health.v1.Health/Check", want: "{\"status\":\"SERVING\"}\n"},
	} {
		t.Run(c.line, func(t *testing.T) {
			t.Parallel()
			line := strings.NewReplacer("AT", at, "PROTO", proto).Replace(c.line)
			d, stdout, stderr := w.deps(pipe, nil, quotedWords(line)...)
			d.Backends.Transports = commands.DefaultBackends().Transports
			d.Stdin, d.StdinData = strings.NewReader(c.stdin), c.stdin != ""
			if code := runMain(t, d); code != c.code || c.code == 0 && stdout.String() != strings.ReplaceAll(c.want, "AT", at) {
				t.Errorf("micro %s: exit %d, want %d\n%s\nwant\n%s\n%s", line, code, c.code, stdout, c.want, stderr)
			}
		})
	}
}

// TestDetails: the details of a server's error are shown: in words, and as JSON; those whose type nobody tells as they came.
func TestDetails(t *testing.T) {
	t.Parallel()
	at := grpcPeer(t)
	w := newWorld(t)
	for form, want := range map[string]string{
		"name": `error: pkg.Say Hello: 400 Bad Request: bad
  google.rpc.BadRequest {"fieldViolations":[{"field":"name","description":"is bad"}]}
  google.protobuf.Duration "1.500s"
  pkg.Hint {"text":"ask again"}
  types.example/odd.Thing CAE=
`,
		"json": `"details":[{"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":[{"field":"name","description":"is bad"}]},` +
			`{"@type":"type.googleapis.com/google.protobuf.Duration","value":"1.500s"},{"@type":"type.googleapis.com/pkg.Hint","text":"ask again"},` +
			`{"@type":"types.example/odd.Thing","value":"CAE="}]`,
	} {
		d, stdout, stderr := w.deps(pipe, nil, "call", "grpc://"+at, "Say.Hello", `"details 3 bad"`, "-o", form)
		d.Backends.Transports = commands.DefaultBackends().Transports
		if code := runMain(t, d); code != 6 || stdout.Len() > 0 || !strings.Contains(stderr.String(), strings.ReplaceAll(want, "AT", at)) {
			t.Errorf("-o %s: exit %d\n%s%s\nwant\n%s", form, code, stdout, stderr, want)
		}
	}
}

// quotedWords takes a line apart at spaces outside quotes, which stay.
func quotedWords(line string) []string {
	quoted := false
	return strings.FieldsFunc(line, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return r == ' ' && !quoted
	})
}
