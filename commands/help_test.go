package commands_test

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cb02dfca/micro/commands"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/transport"
)

// TestHelpOpensNothing asks each command for its help in a world where opening anything is a failure.
func TestHelpOpensNothing(t *testing.T) {
	t.Parallel()
	for _, name := range commands.CommandNames() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			for _, args := range [][]string{{name, "--help"}, {"-h", name}, {name, "x", "y", "z", "--help"}, {"help", name}} {
				d, stdout, stderr := w.deps(pipe, nil, args...)
				d.Backends = commands.Backends{
					Registries: registry.Openers{"default": func(context.Context, *url.URL) (registry.Registry, error) {
						t.Error("the registry was opened")
						return nil, registry.ErrUnavailable
					}},
					Transports: transport.Openers{"http": func(context.Context, *url.URL) (transport.Transport, error) {
						t.Error("the transport was opened")
						return nil, transport.ErrNotSent
					}},
					Brokers: func(func(context.Context) (registry.Registry, error)) broker.Openers {
						t.Error("the broker was opened")
						return nil
					},
				}
				if code := runMain(t, d); code != 0 || stderr.Len() > 0 {
					t.Fatalf("%q: exit %d, %s", args, code, stderr)
				}
				for _, part := range []string{"Usage\n  micro " + name, "\nExamples\n  micro ", "\nFlags of every command\n", "\nExit codes\n"} {
					if !strings.Contains(stdout.String(), part) {
						t.Errorf("%q has no %q", args, part)
					}
				}
				for line := range strings.Lines(stdout.String()) {
					if fields := strings.Fields(line); len(fields) == 1 && strings.HasPrefix(fields[0], "-") {
						t.Errorf("a flag without a word of help: %q", line)
					}
				}
			}
		})
	}
}

// TestHelpListsCommands holds that each command that is not hidden stands in the list of commands.
func TestHelpListsCommands(t *testing.T) {
	t.Parallel()
	got := newWorld(t).run(t, pipe, nil, "help")
	for _, name := range commands.Shown() {
		if !strings.Contains(got.stdout, "\n  "+name+" ") {
			t.Errorf("%s is not listed", name)
		}
	}
	if strings.Contains(got.stdout, "\n  services ") || got.code != 0 {
		t.Error("a hidden command is listed")
	}
}

// TestOneFileDecidesHowThingsLook holds that output.go alone imports the libraries for tables and colour.
func TestOneFileDecidesHowThingsLook(t *testing.T) {
	t.Parallel()
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var importers []string
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), e.Name(), nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(file.Imports, func(i *ast.ImportSpec) bool {
			return strings.Contains(i.Path.Value, "tablewriter") || strings.Contains(i.Path.Value, "fatih/color")
		}) {
			importers = append(importers, e.Name())
		}
	}
	if !slices.Equal(importers, []string{"output.go"}) {
		t.Errorf("imported by %q", importers)
	}
}
