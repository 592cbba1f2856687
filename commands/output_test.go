package commands_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/cb02dfca/micro/commands"
	"github.com/cb02dfca/micro/pkg/registry"
)

func TestForms(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		line string
		on   terminal
		want string
	}{
		{"list -o table", pipe, "SERVICE   VERSION   NODES   ENDPOINTS   TRANSPORT   AGE\n" +
			"greeter   1.4.0     2       3           http        2h\n" +
			"greeter   1.10.0    1       3           http        3s\n" +
			"orders    2.0.1     1       2           http        2d\n"},
		{"list services orders -o wide", pipe, "SERVICE   VERSION   NODES   ENDPOINTS   TRANSPORT   AGE   PROTOCOL\n" +
			"orders    2.0.1     1       2           http        2d    mucp\n"},
		{"list services orders -o tsv", tty, "orders\t2.0.1\t1\t2\thttp\t2026-11-20T12:02:11Z\n"},
		{"list -o name", tty, "greeter\norders\n"},
		{"list endpoints orders -o name", pipe, "orders/Orders.Get\norders/Orders.Put\n"},
		{"describe greeter --schema json --version 1.4.0 -o name", pipe, "Say.Chat\nSay.Count\nSay.Hello\n"},
		{"describe greeter Say.Hello --example -o name", pipe, "Say.Hello\n"},
		{"list topics -o name", pipe, "topic\nuser.created\n"},
		{"list services orders -o jsonl", pipe, `{"name":"orders","version":"2.0.1","nodes":1,"endpoints":2,"transport":"http","protocol":"mucp","started":"2026-11-20T12:02:11Z"}` + "\n"},
		{"list services orders -o yaml", pipe, "- name: orders\n  version: 2.0.1\n  nodes: 1\n  endpoints: 2\n  transport: http\n  protocol: mucp\n  started: \"2026-11-20T12:02:11Z\"\n"},
		{"list services nothing* -o yaml", pipe, "[]\n"},
		{"list services nothing* -o json", pipe, "[]\n"},
		{"list services nothing* -o jsonl", pipe, ""},
		{"list -q .[].name", pipe, "greeter\ngreeter\norders\n"},
		{"list -q .[0].nodes", pipe, "2\n"},
		{"list -q .[].name -o json", pipe, "[\n  \"greeter\",\n  \"greeter\",\n  \"orders\"\n]\n"},
		{"list -q .[].name -o jsonl", pipe, "\"greeter\"\n\"greeter\"\n\"orders\"\n"},
		{"list -q empty -o json", pipe, "[]\n"},
		{"list -q .[0]|{name,nodes} -o yaml", pipe, "name: greeter\nnodes: 2\n"},
		{"list services orders -q .[0]|{name}", pipe, "{\"name\":\"orders\"}\n"},
		{"list services orders -q .[0]|{name}", tty, "{\n  \"name\": \"orders\"\n}\n"},
		{"services orders -o name", pipe, "orders\n"},
		{"ls nodes --version 1.10.0 -o name", pipe, "greeter-c0de\n"},
		{"list node gree* --meta zone=a --meta transport=http -o name", pipe, "greeter-7f3a\n"},
		{"describe greeter -o name", pipe, "Say.Chat\nSay.Count\nSay.Hello\n"},
		{"get greeter Say.Hello -q .responseType", pipe, "answer\n"},
		{"describe greeter Say.Hello --schema json -q .request.properties.times.default", pipe, "1\n"},
		{"describe greeter/Say.Hello --example -q .[].body.mood", pipe, "glad\n"},
		{"health greeter -q all(.[];.ok)", pipe, "true\n"},
		{"stats greeter -q .[].calls", pipe, "0\n0\n0\n"},
		{"version", pipe, "micro 1.0.0"},
		{"version -q .version", pipe, "1.0.0\n"},
		{"--version", pipe, "micro 1.0.0"},
		{"help", pipe, "micro finds, calls and serves services.\n"},
		{"", pipe, "micro finds, calls and serves services.\n"},
		{"-h", pipe, "micro finds, calls and serves services.\n"},
		{"help ls", pipe, "List services, nodes, endpoints or topics.\n"},
	} {
		t.Run(strings.ReplaceAll(c.line, "/", "|"), func(t *testing.T) {
			t.Parallel()
			got := worlds["ok"](t).run(t, c.on, map[string]string{"NO_COLOR": "1"}, strings.Fields(c.line)...)
			whole := strings.HasPrefix(c.line, "list") || strings.Contains(c.line, "-")
			if got.code != 0 || got.stderr != "" || !strings.HasPrefix(got.stdout, c.want) || whole && strings.Contains(c.line, " ") && got.stdout != c.want {
				t.Errorf("exit %d\n%s\nwant\n%s\nstderr %s", got.code, got.stdout, c.want, got.stderr)
			}
		})
	}
}

// TestYAMLAgreesWithJSON holds that both tell the same, for values that YAML reads in its own way when they are not
// quoted.
func TestYAMLAgreesWithJSON(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	meta := []string{"no", "no", "octal", "010", "date", "2026-01-01", "tilde", "~", "colon", "a: b", "hash", "a #b", "emoji", "🙂", "quote", `"'`, "lt", "<&>"}
	w.register(t, node("n-1", "yes", "1.10", "127.0.0.1:1", 0, meta...))
	asJSON := w.run(t, pipe, nil, "list", "nodes", "-o", "json")
	asYAML := w.run(t, pipe, nil, "list", "nodes", "-o", "yaml")
	var a, b []map[string]any
	if err := json.Unmarshal([]byte(asJSON.stdout), &a); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal([]byte(asYAML.stdout), &b); err != nil {
		t.Fatalf("%v in\n%s", err, asYAML.stdout)
	}
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	if string(x) != string(y) || len(a) != 1 {
		t.Errorf("JSON %s\nYAML %s", x, y)
	}
	if strings.Contains(asJSON.stdout, `\u003c`) {
		t.Error("JSON is escaped for HTML")
	}
}

func TestColour(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		line string
		on   terminal
		env  map[string]string
		want bool
	}{
		"terminal":             {"list", tty, nil, true},
		"pipe":                 {"list -o table", pipe, nil, false},
		"never":                {"list --color never", tty, nil, false},
		"no-color":             {"list --no-color", tty, nil, false},
		"always":               {"list -o table --color always", pipe, nil, true},
		"NO_COLOR":             {"list", tty, map[string]string{"NO_COLOR": "1"}, false},
		"NO_COLOR empty":       {"list", tty, map[string]string{"NO_COLOR": ""}, true},
		"flag over NO_COLOR":   {"list --color always", tty, map[string]string{"NO_COLOR": "1"}, true},
		"CLICOLOR_FORCE":       {"list -o table", pipe, map[string]string{"CLICOLOR_FORCE": "1"}, true},
		"CLICOLOR_FORCE zero":  {"list -o table", pipe, map[string]string{"CLICOLOR_FORCE": "0"}, false},
		"NO_COLOR over FORCE":  {"list", tty, map[string]string{"NO_COLOR": "1", "CLICOLOR_FORCE": "1"}, false},
		"dumb":                 {"list", tty, map[string]string{"TERM": "dumb"}, false},
		"auto on a terminal":   {"list --color auto", tty, nil, true},
		"auto beats the force": {"list -o table --color auto", pipe, map[string]string{"CLICOLOR_FORCE": "1"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := worlds["ok"](t).run(t, c.on, c.env, strings.Fields(c.line)...)
			if coloured := strings.Contains(got.stdout, "\x1b["); coloured != c.want || got.code != 0 {
				t.Errorf("colour %v, want %v: %q", coloured, c.want, got.stdout)
			}
		})
	}
}

// TestColourByStream holds that each stream decides for itself.
func TestColourByStream(t *testing.T) {
	t.Parallel()
	d, stdout, stderr := worlds["ok"](t).deps(pipe, nil, "list", "services", "greter")
	d.StderrTTY = true
	if code := runMain(t, d); code != 3 || stdout.Len() > 0 || !strings.Contains(stderr.String(), "\x1b[") {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestAge(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 59 * time.Second: "59s", time.Minute: "1m", 59 * time.Minute: "59m", time.Hour: "1h",
		47 * time.Hour: "47h", 48 * time.Hour: "2d", 400 * 24 * time.Hour: "400d",
	} {
		if got := commands.Age(d); got != want {
			t.Errorf("age of %v is %s, want %s", d, got, want)
		}
	}
}

func TestCompareVersions(t *testing.T) {
	t.Parallel()
	for _, c := range [][2]string{{"1.9.0", "1.10.0"}, {"1.0", "1.0.1"}, {"v1", "v2"}, {"", "1"}, {"1.0-a", "1.0-b"}, {"9", "10"}, {"007", "8"}} {
		if commands.CompareVersions(c[0], c[1]) >= 0 || commands.CompareVersions(c[1], c[0]) <= 0 || commands.CompareVersions(c[0], c[0]) != 0 {
			t.Errorf("%q is not before %q", c[0], c[1])
		}
	}
}

func TestShellQuote(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"": "''", "name=Ada": "name=Ada", "a b": "'a b'", `{"a":1}`: `'{"a":1}'`, "it's": `'it'\''s'`, "$HOME": "'$HOME'", "ü": "'ü'", "a\nb": "'a\nb'",
	} {
		if got := commands.ShellQuote(in); got != want {
			t.Errorf("ShellQuote(%q) = %s, want %s", in, got, want)
		}
	}
}

// TestGoMicroV1Topics: its subscribers stand under a name of their own, where ours have a second record, which is left out.
func TestGoMicroV1Topics(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.subscriber(t, "ours", "", "ours-1")
	for id, meta := range map[string][]string{
		"ours-2":   {registry.MetaTopic, "ours", registry.MetaHidden, "true"},
		"theirs-1": {registry.MetaTopic, "theirs"},
	} {
		w.register(t, node(id, registry.BrokerServiceV1, "ff.http.broadcast", "127.0.0.1:9000", time.Minute, append(meta, registry.MetaBroker, "http")...))
	}
	if got := w.run(t, pipe, nil, "list", "topics", "-o", "name"); got.code != 0 || got.stdout != "ours\ntheirs\n" {
		t.Errorf("topics: exit %d, %q", got.code, got.stdout)
	}
	if got := w.run(t, pipe, nil, "list", "services", "-o", "name"); got.stdout != "" {
		t.Errorf("services: %q", got.stdout)
	}
}
