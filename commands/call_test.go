package commands_test

import (
	"context"
	"encoding/json"
	"iter"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/status"
)

// talkCases are run in the worlds that are named, on a terminal, in a pipe and with -o json.
var talkCases = []struct {
	name   string
	args   []string
	worlds []string
}{
	{"call", []string{"call", "greeter", "Say.Hello", `{"name":"x"}`}, []string{"ok", "empty", "down", "dead"}},
	{"call-items", []string{"call", "greeter/Say.Profile", "name=x", "times=3", "tags[]=a", "user.Age=7"}, []string{"ok"}},
	{"call-service-typo", []string{"call", "greter", "Say.Hello", "name=x"}, []string{"ok"}},
	{"call-endpoint-typo", []string{"call", "greeter", "Say.Helo", "name=x"}, []string{"ok"}},
	{"call-field-typo", []string{"call", "greeter", "Say.Hello", "nme=x", "times=abc"}, []string{"ok"}},
	{"call-node-typo", []string{"call", "greeter", "Say.Hello", "--node", "greeter-7f3b"}, []string{"ok"}},
	{"call-quotes", []string{"call", "greeter", "Say.Hello", `'{"name":`}, []string{"ok"}},
	{"call-no-json", []string{"call", "greeter", "Say.Hello", `{name:x}`}, []string{"ok"}},
	{"call-remote-error", []string{"call", "greeter", "Say.Hello"}, []string{"ok"}},
	{"call-include", []string{"call", "greeter", "Say.Echo", "a=b", "-i", "-H", "x-who:me"}, []string{"ok"}},
	{"call-example", []string{"call", "greeter", "Say.Hello", "--example"}, []string{"ok"}},
	{"call-text", []string{"call", "greeter", "Say.Text"}, []string{"ok"}},
	{"call-which", []string{"call", "greeter"}, []string{"ok"}},
	{"call-stream", []string{"call", "greeter", "Say.Count", "times=2"}, []string{"ok"}},
	{"call-all", []string{"call", "greeter", "Say.Hello", "name=x", "--all"}, []string{"empty", "dead"}},
	{"stream-fails", []string{"stream", "greeter", "Say.Count", "times=1", "name=fail"}, []string{"ok"}},
	{"stream", []string{"stream", "greeter", "Say.Chat", "name=x"}, []string{"ok", "empty", "down", "dead"}},
	{"publish", []string{"publish", "topic"}, []string{"ok", "empty"}},
	{"publish-typo", []string{"publish", "topc", "name=x"}, []string{"ok"}},
	{"publish-required", []string{"publish", "topc", "--require-subscriber"}, []string{"ok"}},
	{"publish-no-json", []string{"publish", "topic", "hello"}, []string{"ok"}},
	{"subscribe-for", []string{"subscribe", "topic", "--for", "1ms"}, []string{"empty"}},
	{"subscribe-typo", []string{"subscribe", "to pic"}, []string{"empty"}},
	{"help-call", []string{"call", "--help"}, []string{"empty"}},
	{"help-stream", []string{"stream", "--help"}, []string{"empty"}},
	{"help-publish", []string{"publish", "--help"}, []string{"empty"}},
	{"help-subscribe", []string{"subscribe", "--help"}, []string{"empty"}},
}

func TestTalkGolden(t *testing.T) {
	t.Parallel()
	for _, c := range talkCases {
		for _, name := range c.worlds {
			t.Run(c.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				w := talkWorlds[name](t)
				file := c.name + "." + name
				golden(t, file+".tty", c.args, w.run(t, tty, nil, c.args...).timeless())
				golden(t, file+".pipe", c.args, w.run(t, pipe, nil, c.args...).timeless())
				if c.args[len(c.args)-1] == "--help" {
					return
				}
				args := append([]string{"-o", "json"}, c.args...)
				got := w.run(t, pipe, nil, args...)
				if got.code == 0 && !json.Valid([]byte(got.stdout)) {
					t.Errorf("%q is not one JSON document", got.stdout)
				}
				golden(t, file+".json", args, got.timeless())
			})
		}
	}
}

// TestTalkFailures holds the exit code, the first line of standard error, and nothing on standard output.
func TestTalkFailures(t *testing.T) {
	t.Parallel()
	big := `"` + strings.Repeat("x", 4<<20) + `"`
	for name, c := range map[string]struct {
		args  []string
		world string
		code  int
		first string
	}{
		"no service":       {[]string{"call"}, "ok", 2, `micro call: SERVICE is missing`},
		"half a name":      {[]string{"call", "greeter/"}, "ok", 2, `"greeter/" is not SERVICE/ENDPOINT`},
		"unknown field":    {[]string{"call", "greeter", "Say.Hello", `{"nme":"x"}`}, "ok", 2, `request does not fit Say.Hello (profile); nothing was sent`},
		"wrong type":       {[]string{"call", "greeter", "Say.Hello", `{"name":1}`}, "ok", 2, `request does not fit Say.Hello (profile); nothing was sent`},
		"unvalidated":      {[]string{"call", "greeter", "Say.Hello", `{"nme":"x"}`, "--no-validate"}, "ok", 6, `greeter Say.Hello: 400 Bad Request: `},
		"too large":        {[]string{"call", "greeter", "Say.Hello", big}, "ok", 2, `request body is larger than 4 MiB, the most that a message carries; nothing was sent`},
		"body and items":   {[]string{"call", "greeter", "Say.Hello", "{}", "a=b"}, "ok", 2, `one body, or items, and not both: "a=b" follows "{}"`},
		"body twice":       {[]string{"call", "greeter", "Say.Hello", "{}", "-d", "{}"}, "ok", 2, `a body is given twice: by -d, and as "{}"`},
		"no such file":     {[]string{"call", "greeter", "Say.Hello", "-d", "@/nowhere/x"}, "ok", 2, `flag -d: open /nowhere/x: no such file or directory`},
		"no item":          {[]string{"call", "greeter", "Say.Hello", "name"}, "ok", 2, `"name" is neither JSON nor an item: want {...} or name=x`},
		"item twice":       {[]string{"call", "greeter", "Say.Hello", "name=a", "name=b"}, "ok", 2, `item name=b: name is given twice`},
		"item in text":     {[]string{"call", "greeter", "Say.Hello", "name=a", "name.b=c"}, "ok", 2, `item name.b=c: name is given as something else already`},
		"item no JSON":     {[]string{"call", "greeter", "Say.Hello", "times:=x"}, "ok", 2, `item times:=x: what follows := is not JSON: invalid character 'x' looking for beginning of value`},
		"item's file":      {[]string{"call", "greeter", "Say.Hello", "photo@/nowhere/x"}, "ok", 2, `item photo@/nowhere/x: open /nowhere/x: no such file or directory`},
		"bad header":       {[]string{"call", "greeter", "Say.Hello", "-H", "x"}, "ok", 2, `flag -H: "x" is not KEY:VALUE`},
		"reserved header":  {[]string{"call", "greeter", "Say.Hello", "-H", "Micro-Id:1"}, "ok", 2, `flag -H: "micro-id" is the framework's own: names that begin with micro- are not sent`},
		"no variable":      {[]string{"call", "greeter", "Say.Hello", "-H", "x:${NONE}"}, "ok", 2, `flag -H: the environment has no variable NONE`},
		"all and node":     {[]string{"call", "greeter", "Say.Hello", "--all", "--node", "x"}, "ok", 2, `flags --all and --node do not go together`},
		"address and node": {[]string{"call", "greeter", "Say.Hello", "--address", "x:1", "--node", "x"}, "ok", 2, `flag --address names the node already: it goes with none of --node, --version and --all`},
		"unknown service":  {[]string{"call", "greter", "Say.Hello"}, "ok", 3, `service "greter" not found (registry default, TIME, knows 1 service)`},
		"unknown endpoint": {[]string{"call", "greeter", "Say.Helo"}, "ok", 3, `greeter 1.4.0 has no endpoint "Say.Helo"`},
		"unknown node":     {[]string{"call", "greeter", "Say.Hello", "--node", "x"}, "ok", 3, `node "x" not found`},
		"unknown version":  {[]string{"call", "greeter", "Say.Hello", "--version", "9"}, "ok", 3, `greeter has no node of version "9"; versions: 1.4.0`},
		"dead nodes":       {[]string{"call", "greeter", "Say.Hello"}, "two dead", 4, `no node of "greeter" answered (2 tried)`},
		"dead address":     {[]string{"call", "greeter", "Say.Hello", "--address", "nobody:1"}, "ok", 4, `no node of "greeter" answered (1 tried)`},
		"another service":  {[]string{"call", "other", "Say.Hello", "--address", "greeter-7f3a:1"}, "ok", 4, `no node of "other" answered (1 tried)`},
		"registry away":    {[]string{"call", "greeter", "Say.Hello"}, "down", 4, `registry default is not answering: connection refused`},
		"time ran out":     {[]string{"call", "greeter", "Say.Wait", "--timeout", "60ms"}, "ok", 5, `greeter Say.Wait: no answer within 60ms`},
		"denied":           {[]string{"call", "greeter", "Say.Hello", "code=403"}, "ok", 7, `greeter Say.Hello: 403 Forbidden: as asked\x1b[2J`},
		"unknown caller":   {[]string{"call", "greeter", "Say.Hello", "code=401"}, "ok", 7, `greeter Say.Hello: 401 Unauthorized: as asked\x1b[2J`},
		"handler's 404":    {[]string{"call", "greeter", "Say.Hello", "code=404"}, "ok", 6, `greeter Say.Hello: 404 Not Found: as asked\x1b[2J`},
		"overloaded":       {[]string{"call", "greeter", "Say.Hello", "code=503"}, "ok", 4, `greeter Say.Hello: 503 Service Unavailable: as asked\x1b[2J`},
		"handler slow":     {[]string{"call", "greeter", "Say.Hello", "code=504"}, "ok", 5, `greeter Say.Hello: 504 Gateway Timeout: as asked\x1b[2J`},
		"panic":            {[]string{"call", "greeter", "Say.Panic"}, "ok", 6, `greeter Say.Panic: 500 Internal Server Error: the handler panicked`},
		"content type":     {[]string{"call", "greeter", "Say.Echo", "-d", "hi", "-H", "content-type:text/x"}, "ok", 6, `greeter Say.Echo: 415 Unsupported Media Type: `},
		"all of a stream":  {[]string{"call", "greeter", "Say.Count", "--all"}, "ok", 2, `Say.Count streams, and flag --all is for calls`},
		"no address":       {[]string{"call", "greeter", "Say.Hello", "--address", "nonsense"}, "ok", 2, `flag --address: "nonsense" is not HOST:PORT`},
		"names of answers": {[]string{"call", "greeter", "Say.Count", "-o", "name"}, "ok", 2, `Say.Count streams: its answers have no names for -o name`},
		"endless query":    {[]string{"list", "-q", "last(repeat(1))", "--timeout", "60ms"}, "ok", 5, `jq expression "last(repeat(1))": the time ran out before it was done`},
		"stream's field":   {[]string{"stream", "greeter", "Say.Chat", "nme=x"}, "ok", 2, `request does not fit Say.Chat (request); nothing was sent`},
		"bad topic":        {[]string{"publish", "a b"}, "ok", 2, `topic "a b": want letters, digits, '.', '_', '-' or '/', 128 bytes at most`},
		"bad rate":         {[]string{"publish", "topic", "--rate", "fast"}, "ok", 2, `flag --rate: "fast" is not a rate, such as 10, 10/s or 100/m`},
		"no count":         {[]string{"publish", "topic", "-n", "0"}, "ok", 2, `flag --count: 0 is not 1 or more`},
		"lines and a body": {[]string{"publish", "topic", "{}", "-l"}, "ok", 2, `flag --lines reads the messages from standard input: "{}" is one too many`},
		"nobody":           {[]string{"publish", "nobody", "--require-subscriber"}, "ok", 4, `nobody listens to "nobody"`},
		"bad filter":       {[]string{"subscribe", "topic", "--filter", ".["}, "ok", 2, `jq expression ".[": unexpected EOF`},
		"bad queue":        {[]string{"subscribe", "topic", "--queue", "a b"}, "ok", 2, `queue "a b": want letters, digits, '.', '_', '-' or '/', 128 bytes at most`},
		"raw elsewhere":    {[]string{"publish", "topic", "-o", "raw"}, "ok", 2, `unknown output format "raw", known: table, wide, json, jsonl, yaml, name, tsv`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := talkWorlds[c.world](t).run(t, pipe, nil, c.args...)
			first, _, _ := strings.Cut(got.stderr, "\n")
			if !strings.Contains(c.first, "within") {
				first = times.ReplaceAllString(first, "TIME")
			}
			if got.code != c.code || got.stdout != "" || !strings.HasPrefix(first, "error: "+c.first) || !strings.HasSuffix(c.first, ": ") && first != "error: "+c.first {
				t.Errorf("exit %d, want %d\n%s\nwant\nerror: %s\nstdout %q", got.code, c.code, first, c.first, got.stdout)
			}
		})
	}
}

// TestBodies holds where a body comes from, and what items become.
func TestBodies(t *testing.T) {
	t.Parallel()
	w := talkWorlds["ok"](t)
	file := writeFile(t, "{\"from\":\"file\"}\n")
	photo := writeFile(t, "\xff\x00\x01")
	note := writeFile(t, "a\nnote")
	for name, c := range map[string]struct {
		args  []string
		stdin string // "-" is one that nobody may read
		want  string
	}{
		"argument":         {[]string{"Say.Echo", `{"a":1}`}, "-", `{"a":1}`},
		"array":            {[]string{"Say.Echo", `[1]`}, "-", `[1]`},
		"string":           {[]string{"Say.Echo", `"x"`}, "-", `"x"`},
		"number":           {[]string{"Say.Echo", `-5`}, "-", `-5`},
		"null":             {[]string{"Say.Echo", `null`}, "-", `null`},
		"flag":             {[]string{"Say.Echo", "-d", `{"a":2}`}, "-", `{"a":2}`},
		"flag in front":    {[]string{"-d", `{"a":2}`, "Say.Echo"}, "-", `{"a":2}`},
		"flag with a file": {[]string{"Say.Echo", "-d", "@" + file}, "-", `{"from":"file"}`},
		"flag with stdin":  {[]string{"Say.Echo", "-d", "@-"}, `{"a":3}`, `{"a":3}`},
		"dash":             {[]string{"Say.Echo", "-"}, "{\"a\":3}\n", `{"a":3}`},
		"stdin":            {[]string{"Say.Echo"}, ` {"a":4} `, `{"a":4}`},
		"empty stdin":      {[]string{"Say.Echo"}, "\n", `{}`},
		"numbers kept":     {[]string{"Say.Echo", `{"a":12345678901234567890.10}`}, "-", `{"a":12345678901234567890.10}`},
		"items":            {[]string{"Say.Echo", "a=1", "b:=1", "c.d=x", "c.e:=null", "f[]=1", "f[]:=2", "g=a=b@c:=d", "2nd="}, "-", `{"a":"1","b":1,"c":{"d":"x","e":null},"f":["1",2],"g":"a=b@c:=d","2nd":""}`},
		"item of a file":   {[]string{"Say.Echo", "a:=@" + file, "n@" + note, "p@" + photo}, "-", `{"a":{"from":"file"},"n":"a\nnote","p":"/wAB"}`},
		"typed": {[]string{"Say.Profile", "name=7", "times=3", "ratio=0.5", "on=true", "tags[]=1", "marks[]=1", "marks[]=2", "photo@" + photo, "user.Age=7", "label.x=1", "maybe=null"}, "-",
			`{"name":"7","times":3,"ratio":0.5,"on":true,"tags":["1"],"marks":[1,2],"photo":"/wAB","user":{"Age":7},"label":{"x":1},"maybe":null,"code":0}`},
		"typed list": {[]string{"Say.Profile", "tags=[\"a\"]", "user={\"Age\":1}"}, "-",
			`{"name":"","times":0,"ratio":0,"on":false,"tags":["a"],"marks":null,"photo":null,"user":{"Age":1},"label":null,"maybe":null,"code":0}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := append([]string{"call", "greeter"}, c.args...)
			if strings.HasPrefix(c.args[0], "-") {
				args = append(append([]string{"call"}, c.args[:2]...), "greeter", c.args[2])
			}
			d, stdout, stderr := w.deps(pipe, nil, args...)
			d.Stdin, d.StdinData = strings.NewReader(c.stdin), true
			if c.stdin == "-" {
				d.Stdin = untouched{t}
			}
			if code := runMain(t, d); code != 0 || !sameJSON(stdout.String(), c.want) {
				t.Errorf("exit %d\n%s\nwant\n%s\n%s", code, stdout, c.want, stderr)
			}
		})
	}
}

// TestLoopKeepsItsInput is the shell's while read: each call leaves the rest of standard input to the loop.
func TestLoopKeepsItsInput(t *testing.T) {
	t.Parallel()
	w := talkWorlds["ok"](t)
	for _, args := range [][]string{{"call", "greeter", "Say.Hello", "name=x"}, {"call", "greeter", "Say.Hello", "-d", `{"name":"x"}`},
		{"call", "greeter", "Say.Count", "times=1"}, {"stream", "greeter", "Say.Count", "times=1"}, {"publish", "topic", "{}"}, {"publish", "topic", "-d", "{}"},
		{"call", "greeter", "Say.Hello", "name=x", "--all"}} {
		if got := w.feed(t, untouched{t}, pipe, args...); got.code != 0 {
			t.Errorf("micro %s: exit %d, %s", strings.Join(args, " "), got.code, got.stderr)
		}
	}
}

func TestCallForms(t *testing.T) {
	t.Parallel()
	w := talkWorlds["ok"](t)
	w.stranger(t, "stranger-1")
	for line, want := range map[string]string{
		"call greeter Say.Hello name=x -o raw":                         `{"msg":"Hello x"}`,
		"call greeter Say.Hello name=x -q .msg":                        "Hello x\n",
		"-q .msg call greeter --timeout 3s Say.Hello name=x":           "Hello x\n",
		"call --node greeter-7f3a greeter Say.Hello --quiet name=x":    "{\"msg\":\"Hello x\"}\n",
		"call greeter Say.Hello name=x -o yaml":                        "msg: Hello x\n",
		"call greeter.Say.Hello name=x":                                "{\"msg\":\"Hello x\"}\n",
		"call greeter Say.Hello name=x --address greeter-7f3a:1":       "{\"msg\":\"Hello x\"}\n",
		"call greeter Say.Hello name=x --version 1.4.0":                "{\"msg\":\"Hello x\"}\n",
		"call greeter Say.Echo a=1 -H x-who:${WHO} -i -q .headers":     "{\"content-type\":\"application/json\",\"x-who\":\"me\"}\n",
		"call greeter Say.Echo -d hi -H content-type:application/json": "",
		"call greeter Say.Nothing":                                     "",
		"call greeter Say.Nothing -o json":                             "null\n",
		"call greeter Say.Text -q .":                                   "red \x1b[31m\nend\n",
		"call greeter Say.Bytes -o raw":                                "\xff\x00",
		"call greeter Debug.Health":                                    "{\"status\":\"ok\"}\n",
		"call greeter Say.Hello --all name=x -q .[].body.msg":          "Hello x\n",
		"call stranger Any.Thing a=1":                                  "{\"a\":\"1\"}\n",
		"call stranger Any.Thing a=1 --all -q .[0].ok":                 "true\n",
	} {
		t.Run(strings.ReplaceAll(line, "/", "|"), func(t *testing.T) {
			t.Parallel()
			got := w.run(t, pipe, map[string]string{"WHO": "me"}, strings.Fields(line)...)
			if want == "" && strings.Contains(line, "-d hi") {
				if got.code != 2 || !strings.HasPrefix(got.stderr, "error: request body is not JSON: invalid character 'h'") {
					t.Errorf("exit %d, %q", got.code, got.stderr)
				}
				return
			}
			if got.code != 0 || got.stdout != want {
				t.Errorf("exit %d, %q, want %q; %s", got.code, got.stdout, want, got.stderr)
			}
		})
	}
}

// TestOneEndpoint holds that the only endpoint of a service need not be named.
func TestOneEndpoint(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.stranger(t, "stranger-1")
	n := node("stranger-1", "stranger", "", "stranger-1:1", 0)
	w.register(t, n, "Any.Thing")
	for _, line := range []string{"call stranger a=1", "call stranger {\"a\":\"1\"}"} {
		if got := w.run(t, pipe, nil, strings.Fields(line)...); got.code != 0 || got.stdout != "{\"a\":\"1\"}\n" {
			t.Errorf("micro %s: exit %d, %q, %q", line, got.code, got.stdout, got.stderr)
		}
	}
}

// TestVerboseCall holds the steps that -v tells.
func TestVerboseCall(t *testing.T) {
	t.Parallel()
	got := talkWorlds["ok"](t).run(t, pipe, nil, "call", "greeter", "Say.Hello", "name=x", "-v")
	want := regexp.MustCompile(`^\* registry  default: greeter 1\.4\.0 +[0-9.]+ms
\* connect   greeter-7f3a greeter-7f3a:1 +[0-9.]+ms
\* schema    greeter-7f3a tells what it serves +[0-9.]+ms
\* connect   greeter-7f3a greeter-7f3a:1 \(reused\) +[0-9.]+ms
> Say\.Hello   json 12 B
< 200 OK      json 17 B +[0-9.]+ms
\* total +[0-9.]+ms
$`)
	if got.code != 0 || !want.MatchString(got.stderr) {
		t.Errorf("exit %d\n%s", got.code, got.stderr)
	}
}

// countingRegistry counts the questions that it is asked.
type countingRegistry struct {
	registry.Registry
	asked *atomic.Int32
}

func (c countingRegistry) Get(ctx context.Context, s string) ([]registry.Node, error) {
	c.asked.Add(1)
	return c.Registry.Get(ctx, s)
}
func (c countingRegistry) List(ctx context.Context) ([]registry.Node, error) {
	c.asked.Add(1)
	return c.Registry.List(ctx)
}
func (c countingRegistry) Watch(ctx context.Context, s string) iter.Seq2[[]registry.Node, error] {
	c.asked.Add(1)
	return c.Registry.Watch(ctx, s)
}

// TestOneDiscovery holds that the look at the schema costs no second look for nodes.
func TestOneDiscovery(t *testing.T) {
	t.Parallel()
	w := talkWorlds["ok"](t)
	for _, args := range [][]string{{"call", "greeter", "Say.Hello", "name=x"}, {"call", "greeter", "Say.Hello", "name=x", "--all"},
		{"stream", "greeter", "Say.Count", "times=1"}} {
		d, _, stderr := w.deps(pipe, nil, args...)
		var asked atomic.Int32
		d.Backends.Registries["default"] = func(context.Context, *url.URL) (registry.Registry, error) {
			return countingRegistry{w.registry.View(), &asked}, nil
		}
		if code := runMain(t, d); code != 0 || asked.Load() != 1 {
			t.Errorf("micro %s: exit %d, the registry was asked %d times; %s", strings.Join(args, " "), code, asked.Load(), stderr)
		}
	}
}

// TestDeadNodeIsSkipped holds that one dead node does not fail a call while another lives.
func TestDeadNodeIsSkipped(t *testing.T) {
	t.Parallel()
	w := talkWorlds["ok"](t)
	w.register(t, node("greeter-dead", "greeter", "1.4.0", "nobody:1", 0), "Say.Hello")
	for range 20 {
		if got := w.run(t, pipe, nil, "call", "greeter", "Say.Hello", "name=x"); got.code != 0 || got.stderr != "" {
			t.Fatalf("exit %d, %q", got.code, got.stderr)
		}
	}
}

func TestCallAll(t *testing.T) {
	t.Parallel()
	w := talkWorlds["ok"](t)
	w.talker(t, "greeter-91bc", nil)
	got := w.run(t, pipe, nil, "call", "greeter", "Say.Hello", "name=x", "--all", "-o", "jsonl").timeless()
	want := "{\"node\":\"greeter-7f3a\",TIME,\"ok\":true,\"body\":{\"msg\":\"Hello x\"}}\n{\"node\":\"greeter-91bc\",TIME,\"ok\":true,\"body\":{\"msg\":\"Hello x\"}}\n"
	if got.code != 0 || got.stdout != want {
		t.Errorf("exit %d\n%s", got.code, got.stdout)
	}
	if got = w.run(t, pipe, nil, "call", "greeter", "Say.Hello", "code=403", "--all", "-q", ".[].error.code"); got.code != 7 || got.stdout != "403\n403\n" {
		t.Errorf("all refuse: exit %d, %q", got.code, got.stdout)
	}
	w.register(t, node("greeter-dead", "greeter", "1.4.0", "nobody:1", 0), "Say.Hello")
	got = w.run(t, pipe, nil, "call", "greeter", "Say.Hello", "name=x", "--all")
	if got.code != 9 || !regexp.MustCompile("^greeter-7f3a\t[0-9.]+\tyes\t{\"msg\":\"Hello x\"}\n(.*\n)greeter-dead\t[0-9.]+\tno\tconnection refused.*\n$").MatchString(got.stdout) {
		t.Errorf("partly: exit %d\n%s", got.code, got.stdout)
	}
}

// TestBlame holds that a "bad request" names the required field that is missing.
func TestBlame(t *testing.T) {
	t.Parallel()
	got := talkWorlds["ok"](t).run(t, pipe, nil, "call", "greeter", "Say.Hello")
	if got.code != 6 || !strings.Contains(got.stderr, "\n  name   required, and missing\n") {
		t.Errorf("exit %d, %s", got.code, got.stderr)
	}
}

// TestInterruptedCall holds that Ctrl-C ends a call at once, tells its handler, and is exit 130 without a word.
func TestInterruptedCall(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	waits := make(chan string, 2)
	w.talker(t, "greeter-1", waits)
	d, _, _ := w.deps(pipe, nil, "call", "greeter", "Say.Wait")
	l := start(t, d)
	for _, want := range []string{"started", "cancelled"} {
		select {
		case got := <-waits:
			if got != want {
				t.Errorf("the handler has %s", got)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("the handler has not %s", want)
		}
		if want == "started" {
			if code := l.stop(t); code != 130 || l.stderr.String() != "" {
				t.Errorf("exit %d, %q", code, l.stderr)
			}
		}
	}
}

// TestHostileAnswer holds that no answer and no error steers a terminal.
func TestHostileAnswer(t *testing.T) {
	t.Parallel()
	w := talkWorlds["ok"](t)
	evil := `{"a":"\u001b[2J\u009b\u202e"}`
	for _, args := range [][]string{{"Say.Text"}, {"Say.Text", "-o", "raw"}, {"Say.Text", "-q", "."}, {"Say.Text", "-o", "yaml"}, {"Say.Echo", evil}, {"Say.Echo", evil, "-o", "raw"},
		{"Say.Echo", evil, "-q", ".a"}, {"Say.Hello", "code=500"}, {"Say.Echo", "{}", "-i", "-H", "x-who:\x1b[2J"}, {"Say.Text", "--all"}, {"Say.Bytes"}} {
		got := w.run(t, tty, map[string]string{"NO_COLOR": "1"}, append([]string{"call", "greeter"}, args...)...)
		out := got.stdout + strings.ReplaceAll(got.stderr, "\r\x1b[K", "")
		if i := strings.IndexFunc(out, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 || r == '\u202e' }); i >= 0 || out == "" {
			t.Errorf("%q lets a control through: %q", args, out)
		}
	}
}

func TestExplainKeepsTheDetails(t *testing.T) {
	t.Parallel()
	got := talkWorlds["ok"](t).run(t, pipe, nil, "call", "greeter", "Say.Hello", "code=409", "-o", "json")
	var e struct {
		Error struct {
			Kind, ID, Status, Detail string
			Exit, Code               int
		}
	}
	if err := json.Unmarshal([]byte(got.stderr), &e); err != nil {
		t.Fatalf("%v: %s", err, got.stderr)
	}
	if e.Error.Kind != "remote" || e.Error.ID != "greeter" || e.Error.Code != int(status.AlreadyExists) || e.Error.Status != "Conflict" || e.Error.Exit != 6 {
		t.Errorf("%+v", e.Error)
	}
}
