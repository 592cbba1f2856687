package commands_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
)

// worlds are the states in which each command is run.
var worlds = map[string]func(t *testing.T) *world{
	"ok": func(t *testing.T) *world {
		w := newWorld(t)
		w.greeter(t, "greeter-7f3a", "1.4.0", 2*time.Hour, "zone", "a")
		w.greeter(t, "greeter-91bc", "1.4.0", 40*time.Second, "zone", "b")
		w.greeter(t, "greeter-c0de", "1.10.0", 3*time.Second)
		w.register(t, node("orders-7f3a", "orders", "2.0.1", "10.0.0.4:41233", 50*time.Hour), "Orders.Get", "Orders.Put")
		w.subscriber(t, "user.created", "greeter", "user.created-1")
		w.subscriber(t, "topic", "", "topic-1")
		w.subscriber(t, "topic", "", "topic-2")
		return w
	},
	"empty": newWorld,
	"down": func(t *testing.T) *world {
		w := newWorld(t)
		w.fault = errDown
		return w
	},
	"dead": func(t *testing.T) *world { // the registry still lists a node that is gone
		w := newWorld(t)
		w.register(t, node("greeter-7f3a", "greeter", "1.4.0", "10.0.0.4:41233", 2*time.Hour), "Say.Hello")
		return w
	},
}

// subscriber lists a subscriber as the HTTP broker does.
func (w *world) subscriber(t *testing.T, topic, queue, id string) {
	t.Helper()
	version := queue
	if version == "" {
		version = "ff.http.broadcast"
	}
	w.register(t, node(id, registry.BrokerService, version, "127.0.0.1:9000", time.Minute, registry.MetaBroker, "http", registry.MetaTopic, topic))
}

// goldenCases are the command lines that are run in the worlds that are named.
var goldenCases = []struct {
	name   string
	args   []string
	worlds []string
}{
	{"list", []string{"list"}, []string{"ok", "empty", "down"}},
	{"list-typo", []string{"lst"}, []string{"ok"}},
	{"list-kind-typo", []string{"list", "servces"}, []string{"ok"}},
	{"list-service", []string{"list", "services", "greeter"}, []string{"ok"}},
	{"list-service-typo", []string{"list", "services", "greter"}, []string{"ok", "empty"}},
	{"list-glob", []string{"list", "services", "o*"}, []string{"ok", "empty"}},
	{"list-nodes", []string{"list", "nodes"}, []string{"ok", "empty", "dead"}},
	{"list-nodes-meta", []string{"list", "nodes", "--meta", "zone=a"}, []string{"ok"}},
	{"list-nodes-health", []string{"list", "nodes", "--health"}, []string{"ok", "dead"}},
	{"list-endpoints", []string{"list", "endpoints", "greeter"}, []string{"ok"}},
	{"list-endpoints-typo", []string{"list", "endpoints", "greter"}, []string{"ok"}},
	{"list-topics", []string{"list", "topics"}, []string{"ok", "empty", "down"}},
	{"list-topic-typo", []string{"list", "topics", "topc"}, []string{"ok"}},
	{"describe", []string{"describe", "greeter", "--version", "1.4.0"}, []string{"ok", "dead"}},
	{"describe-versions", []string{"describe", "greeter"}, []string{"ok", "empty", "down"}},
	{"describe-typo", []string{"describe", "greter"}, []string{"ok"}},
	{"describe-endpoint", []string{"describe", "greeter", "Say.Hello", "--version", "1.4.0"}, []string{"ok"}},
	{"describe-endpoint-typo", []string{"inspect", "greeter/Say.Helo", "--version", "1.4.0"}, []string{"ok", "dead"}},
	{"describe-example", []string{"describe", "greeter", "--example"}, []string{"ok", "dead"}},
	{"describe-schema", []string{"describe", "greeter", "Say.Hello", "--schema", "json"}, []string{"ok"}},
	{"health", []string{"health", "greeter"}, []string{"ok", "empty", "down", "dead"}},
	{"health-typo", []string{"health", "greter"}, []string{"ok"}},
	{"health-node-typo", []string{"health", "greeter", "--node", "greeter-7f3b"}, []string{"ok"}},
	{"stats-dead", []string{"stats", "greeter"}, []string{"empty", "down", "dead"}},
	{"stats-typo", []string{"stats", "greter"}, []string{"ok"}},
	{"registry-list", []string{"registry", "list"}, []string{"ok", "empty", "down"}},
	{"registry-get", []string{"registry", "get", "greeter"}, []string{"ok", "empty"}},
	{"registry-get-typo", []string{"registry", "get", "greter"}, []string{"ok"}},
	{"registry-typo", []string{"registry", "exprot"}, []string{"ok"}},
	{"registry-export", []string{"registry", "export"}, []string{"ok", "empty", "down"}},
	{"registry-register", []string{"registry", "register", "testdata/node.json", "--ttl", "1m"}, []string{"empty", "down"}},
	{"registry-register-bad", []string{"registry", "register", "testdata/bad-node.json"}, []string{"empty"}},
	{"registry-import", []string{"registry", "import", "testdata/nowhere.json"}, []string{"empty"}},
	{"registry-deregister", []string{"registry", "deregister", "greeter-7f3a"}, []string{"ok", "empty", "down"}},
	{"registry-prune", []string{"registry", "prune"}, []string{"ok", "empty", "dead"}},
	{"registry-prune-yes", []string{"registry", "prune", "--yes"}, []string{"dead"}},
	{"help-registry", []string{"registry", "--help"}, []string{"empty"}},
	{"help-registry-import", []string{"registry", "import", "--help"}, []string{"empty"}},
	{"help-list", []string{"list", "--help"}, []string{"empty"}},
	{"help-describe", []string{"help", "describe"}, []string{"empty"}},
	{"help-topic", []string{"help", "output"}, []string{"empty"}},
	{"help-exit-codes", []string{"help", "exit-codes"}, []string{"empty"}},
	{"help-environment", []string{"help", "environment"}, []string{"empty"}},
	{"help-items", []string{"help", "items"}, []string{"empty"}},
	{"help-generate", []string{"generate", "--help"}, []string{"empty"}},
	{"generate-none", []string{"generate"}, []string{"empty"}},
	{"generate-nowhere", []string{"generate", "testdata/generate/nowhere.proto"}, []string{"empty"}},
	{"generate-no-proto", []string{"generate", "testdata/node.json"}, []string{"empty"}},
	{"generate-syntax", []string{"generate", "testdata/generate/syntax.proto"}, []string{"empty"}},
	{"generate-outside", []string{"generate", "-I", "testdata", "app.proto"}, []string{"empty"}},
	{"generate-map", []string{"generate", "-M", "say.proto", "testdata/generate/syntax.proto"}, []string{"empty"}},
	{"help-typo", []string{"help", "outptu"}, []string{"empty"}},
}

// TestGolden runs each command on a terminal, in a pipe and with -o json. Standard output with -o json is one document
// or, on an error, nothing.
func TestGolden(t *testing.T) {
	t.Parallel()
	for _, c := range goldenCases {
		for _, name := range c.worlds {
			t.Run(c.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				w := worlds[name](t)
				file := c.name + "." + name
				golden(t, file+".tty", c.args, w.run(t, tty, nil, c.args...))
				golden(t, file+".pipe", c.args, w.run(t, pipe, nil, c.args...))
				if c.args[0] == "help" || c.args[len(c.args)-1] == "--help" {
					return
				}
				args := append([]string{"-o", "json"}, c.args...)
				got := w.run(t, pipe, nil, args...)
				golden(t, file+".json", args, got)
				if got.code == 0 && !json.Valid([]byte(got.stdout)) {
					t.Errorf("%q is not one JSON document", got.stdout)
				}
			})
		}
	}
}
