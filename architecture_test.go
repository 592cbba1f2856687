package main_test

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/cb02dfca/micro"

// backends are the folders whose subfolders are drivers: only micro, for its defaults, and commands, for its list, may
// import those.
var backends = []string{"registry", "transport", "broker"}

// allowed is docs/architecture.md's table: what each package of the house may import of the others. A name ending in /
// stands for the packages below it. Drivers are looked at by the rules in TestImports.
var allowed = map[string][]string{
	"pkg/status":                {},
	"pkg/metadata":              {},
	"pkg/schema":                {"internal/jsonfield", "internal/suggest"},
	"pkg/registry":              {"internal/opener"},
	"pkg/codec":                 {},
	"pkg/transport":             {"internal/opener", "pkg/metadata"},
	"pkg/broker":                {"internal/opener", "pkg/metadata"},
	"pkg/selector":              {"pkg/registry", "pkg/status"},
	"pkg/server":                {"internal/callctx", "pkg/broker", "pkg/codec", "pkg/codec/", "pkg/metadata", "pkg/registry", "pkg/schema", "pkg/status", "pkg/transport"},
	"pkg/client":                {"internal/callctx", "pkg/broker", "pkg/codec", "pkg/codec/", "pkg/metadata", "pkg/registry", "pkg/selector", "pkg/status", "pkg/transport"},
	"pkg/middleware":            {"pkg/client", "pkg/server", "pkg/status"},
	"pkg/micro":                 {"internal/opener", "pkg/"},
	"commands":                  {"internal/", "pkg/"},
	"commands/protoc-gen-micro": {"internal/stub"},
	"internal/demo":             {"internal/terminal", "pkg/broker", "pkg/micro", "pkg/schema", "pkg/server", "pkg/status"},
	"internal/program":          {"internal/terminal", "pkg/broker", "pkg/metadata", "pkg/registry", "pkg/schema", "pkg/server", "pkg/status"},
	"pkg/broker/http":           {"internal/opener", "pkg/broker", "pkg/broker/internal/", "pkg/metadata", "pkg/registry", "pkg/status", "pkg/transport", "pkg/transport/http"},
	"internal/access":           {},
	"internal/amqpconn":         {"internal/access", "internal/opener", "pkg/status"},
	"internal/callctx":          {},
	"internal/generator":        {"internal/stub"},
	"internal/hostcheck":        {"pkg/status"},
	"internal/jsonfield":        {},
	"internal/natsconn":         {"internal/access", "internal/opener", "pkg/status"},
	"internal/netspace":         {},
	"internal/opener":           {},
	"internal/protofile":        {},
	"internal/protoform":        {"internal/jsonfield"},
	"internal/stub":             {},
	"internal/socket":           {},
	"internal/suggest":          {},
	"internal/terminal":         {},
	"internal/testreport":       {},
	"internal/testserver":       {"internal/netspace"},
	"internal/tryout":           {"commands", "pkg/"},
	"":                          {"commands"},
}

type pkg struct {
	ImportPath string
	Imports    []string
}

func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", append([]string{"list", "-json=ImportPath,Imports,Deps"}, args...)...).Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var pkgs []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); dec.More(); {
		var p pkg
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
	return pkgs
}

// TestImports holds the table of docs/architecture.md: imports go down only.
func TestImports(t *testing.T) {
	for _, p := range list(t, "./...") {
		name := inside(p.ImportPath)
		if strings.HasPrefix(name, "examples") {
			continue // they are applications
		}
		for _, imported := range p.Imports {
			if imported != module && !strings.HasPrefix(imported, module+"/") {
				continue
			}
			if to := inside(imported); !mayImport(name, to) {
				t.Errorf("%s imports %s, which docs/architecture.md does not allow", name, to)
			}
		}
	}
}

func inside(path string) string { return strings.TrimPrefix(strings.TrimPrefix(path, module), "/") }

func mayImport(from, to string) bool {
	if strings.HasPrefix(from, "internal/measure") {
		return true // programs that measure services from outside
	}
	if rule, ok := allowed[from]; ok {
		return slices.ContainsFunc(rule, func(r string) bool {
			return r == to || strings.HasSuffix(r, "/") && strings.HasPrefix(to, r)
		})
	}
	return backendMayImport(from, to)
}

// backendMayImport: a driver or a suite may import its interface's package, what that may, the small packages that all
// may, packages below its own interface's folder that are internal to it, and nothing of other interfaces but what they
// are drivers of.
func backendMayImport(from, to string) bool {
	parts := strings.Split(from, "/")
	if len(parts) < 3 || parts[0] != "pkg" {
		return false
	}
	parent := "pkg/" + parts[1]
	shared := []string{"pkg/status", "pkg/metadata", "pkg/registry", "pkg/codec", "pkg/codec/protostruct", "internal/access", "internal/opener", "internal/hostcheck", "internal/jsonfield", "internal/suggest", "internal/callctx", "internal/socket", "internal/natsconn", "internal/amqpconn", "internal/protoform"}
	if strings.HasPrefix(to, parent+"/internal/") || driver(to) == driver(from) {
		return true
	}
	if suite := strings.HasSuffix(from, "test"); suite && (to == "internal/testserver" || to == "internal/netspace") {
		return true
	}
	return to == parent || slices.Contains(shared, to)
}

// driver is the first folder below an interface's.
func driver(path string) string {
	parts := strings.SplitN(path, "/", 4)
	if len(parts) < 3 {
		return path
	}
	return strings.Join(parts[:3], "/")
}

// TestOnlyTheTopImportsDrivers: registry, transport and broker drivers are linked by whoever imports them, so nothing
// below micro and commands does.
func TestOnlyTheTopImportsDrivers(t *testing.T) {
	for _, p := range list(t, "./...") {
		from := inside(p.ImportPath)
		if from == "pkg/micro" || from == "commands" || from == "internal/tryout" || strings.HasPrefix(from, "internal/measure") || strings.HasPrefix(from, "examples") {
			continue
		}
		for _, imported := range p.Imports {
			to := inside(imported)
			for _, b := range backends {
				prefix := "pkg/" + b + "/"
				if strings.HasPrefix(to, prefix) && !strings.Contains(to, "/internal/") && !strings.HasSuffix(to, "test") && driver(from) != driver(to) &&
					!(from == "pkg/broker/http" && to == "pkg/transport/http") { // the broker publishes over the transport's frames
					t.Errorf("%s imports the driver %s", from, to)
				}
			}
		}
	}
}

// TestRegistryClientIsLight: who uses a registry server links none of what only the server needs.
func TestRegistryClientIsLight(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "./pkg/registry/http").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, dep := range strings.Fields(string(out)) {
		if strings.HasPrefix(dep, "go.etcd.io") || strings.HasPrefix(inside(dep), "pkg/registry/http/") && dep != module+"/pkg/registry/http/internal/wire" {
			t.Errorf("pkg/registry/http links %s", dep)
		}
	}
}

// TestCoreIsLight: a service that uses the defaults links none of what only the binary needs.
func TestCoreIsLight(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "./pkg/micro").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, dep := range strings.Fields(string(out)) {
		for _, heavy := range []string{"github.com/urfave/cli", "github.com/olekukonko", "github.com/fatih", "github.com/itchyny", "github.com/bufbuild", "google.golang.org/protobuf/compiler", "go.yaml.in", "text/template", "html/template", "github.com/vmihailenco", "go.mongodb.org", "go.etcd.io", "github.com/hashicorp/memberlist", "github.com/hashicorp/go-msgpack", "go.uber.org", "google.golang.org/grpc", "github.com/coder/websocket", "github.com/go-zookeeper", "github.com/nats-io", "github.com/rabbitmq", "github.com/nsqio", "cloud.google.com", "google.golang.org/api", "go.opencensus.io", "go.opentelemetry.io"} {
			if strings.HasPrefix(dep, heavy) {
				t.Errorf("pkg/micro links %s", dep)
			}
		}
	}
}
