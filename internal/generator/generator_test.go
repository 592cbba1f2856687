package generator_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/internal/generator"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const root = "../.."

const say = `syntax = "proto3";

package say;

service Say {
  rpc Hello(Request) returns (Request);
}

message Request {
  string name = 1;
}
`

// folder is a folder with files in it.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		put(t, filepath.Join(dir, filepath.FromSlash(name)), text)
	}
	return dir
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// module is a folder with a go.mod that requires what examples/generated does, so that nothing has to be fetched. Without tools it names no
// generators.
func module(t *testing.T, path string, tools bool, files map[string]string) string {
	t.Helper()
	dir := folder(t, files)
	absolute, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	example := filepath.Join(root, "examples", "generated")
	text := strings.NewReplacer("module example.com/generated", "module "+path, "=> ../..", "=> "+absolute).Replace(read(t, filepath.Join(example, "go.mod")))
	if !tools {
		text, _, _ = strings.Cut(text, "\ntool (")
	}
	put(t, filepath.Join(dir, "go.mod"), text)
	put(t, filepath.Join(dir, "go.sum"), read(t, filepath.Join(example, "go.sum")))
	return dir
}

// list gives the files below a folder, but for those of the module.
func list(t *testing.T, dir string) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() != "go.mod" && d.Name() != "go.sum" {
			rel, _ := filepath.Rel(dir, path)
			files = append(files, filepath.ToSlash(rel))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func same(t *testing.T, got []string, want ...string) {
	t.Helper()
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got the files %q, want %q", got, want)
	}
}

// done gives what was done, by the file's name.
func done(r *generator.Result) map[string]string {
	out := map[string]string{}
	for _, f := range r.Files {
		out[filepath.ToSlash(f.Path)] = f.Done
	}
	return out
}

func goCommand(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// TestEverything generates each of the files whose stubs package stub has golden files of, and compiles all that.
func TestEverything(t *testing.T) {
	t.Parallel()
	files := map[string]string{}
	var names []string
	for _, name := range []string{"kinds", "collisions", "packages", "two", "editions"} {
		files[name+"/"+name+".proto"] = read(t, filepath.Join(root, "internal", "stub", "testdata", name+".proto"))
		names = append(names, name+"/"+name+".proto")
	}
	for _, name := range []string{"in", "ctx", "client"} {
		files[name+"/"+name+".proto"] = read(t, filepath.Join(root, "internal", "stub", "testdata", name, name+".proto"))
		names = append(names, name+"/"+name+".proto")
	}
	dir := module(t, "example.com/stub", true, files)
	r, err := generator.Generate(t.Context(), generator.Options{Dir: dir, Files: names})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Files) != 8+6+5 || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "editions") || len(r.Missing) > 0 {
		t.Errorf("%d files, warnings %q, missing %q", len(r.Files), r.Warnings, r.Missing)
	}
	goCommand(t, dir, "vet", "./...")
}

// TestAgain: a second run touches what has changed alone, and removes what is not generated any more.
func TestAgain(t *testing.T) {
	t.Parallel()
	dir := module(t, "example.com/app", false, map[string]string{"say/say.proto": say, "say/say.go": "package greet\n"})
	run := func(vt generator.VT) map[string]string {
		t.Helper()
		r, err := generator.Generate(t.Context(), generator.Options{Dir: dir, Files: []string{"say/say.proto"}, VT: vt})
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Warnings) > 0 || len(r.Missing) > 0 {
			t.Errorf("warnings %q, missing %q", r.Warnings, r.Missing)
		}
		return done(r)
	}
	check := func(got map[string]string, messages, fast, stubs string) {
		t.Helper()
		if got["say/say.pb.go"] != messages || got["say/say_vtproto.pb.go"] != fast || got["say/say.micro.go"] != stubs {
			t.Errorf("got %v", got)
		}
	}
	check(run(generator.VTAuto), generator.Written, generator.Written, generator.Written)
	if text := read(t, filepath.Join(dir, "say", "say.micro.go")); !strings.Contains(text, "\npackage greet\n") {
		t.Error("the code is not of the package that is in its folder")
	}
	check(run(generator.VTOn), generator.Unchanged, generator.Unchanged, generator.Unchanged)
	put(t, filepath.Join(dir, "say", "say.proto"), strings.Replace(say, "string name = 1;", "string name = 1;\n  int32 more = 2;", 1))
	check(run(generator.VTAuto), generator.Written, generator.Written, generator.Unchanged)
	check(run(generator.VTOff), generator.Unchanged, generator.Removed, generator.Unchanged)
	service := regexp.MustCompile(`(?s)service Say \{.*?\n\}\n`)
	put(t, filepath.Join(dir, "say", "say.proto"), service.ReplaceAllString(say, ""))
	check(run(generator.VTOff), generator.Written, "", generator.Removed)
	same(t, list(t, dir), "say/say.go", "say/say.pb.go", "say/say.proto")
}

// TestExample: the code of examples/generated is what is generated now.
func TestExample(t *testing.T) {
	t.Parallel()
	example := filepath.Join(root, "examples", "generated", "greeterpb")
	dir := module(t, "example.com/generated", true, map[string]string{"greeterpb/greeter.proto": read(t, filepath.Join(example, "greeter.proto"))})
	if _, err := generator.Generate(t.Context(), generator.Options{Dir: dir, Files: []string{"greeterpb/greeter.proto"}, VT: generator.VTOn}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"greeter.pb.go", "greeter_vtproto.pb.go", "greeter.micro.go"} {
		if read(t, filepath.Join(dir, "greeterpb", name)) != read(t, filepath.Join(example, name)) {
			t.Errorf("examples/generated/greeterpb/%s is old: go generate ./... there writes it anew", name)
		}
	}
}

// TestPlaces: where code goes, and what its package is.
func TestPlaces(t *testing.T) {
	t.Parallel()
	with := strings.Replace(say, "package say;", "package say;\noption go_package = \"example.com/elsewhere/greeter\";", 1)
	importing := strings.Replace(say, "package say;", "package say;\nimport \"base/base.proto\";\nmessage More { base.Base base = 1; }", 1)
	base := "syntax = \"proto3\";\npackage base;\nmessage Base {}\n"
	for _, tc := range []struct {
		name    string
		files   map[string]string
		o       generator.Options
		path    string
		content string
	}{
		{"beside", map[string]string{"api/say.proto": say}, generator.Options{Files: []string{"api/say.proto"}}, "api/say.micro.go", "package api\n"},
		{"go_package", map[string]string{"api/say.proto": with}, generator.Options{Files: []string{"api/say.proto"}}, "api/say.micro.go", "package greeter\n"},
		{"out", map[string]string{"proto/api/say.proto": say}, generator.Options{Files: []string{"proto/api/say.proto"}, ImportPaths: []string{"proto"}, Out: "gen"}, "gen/api/say.micro.go", "package api\n"},
		{"a name below -I", map[string]string{"proto/api/say.proto": say}, generator.Options{Files: []string{"api/say.proto"}, ImportPaths: []string{"proto"}}, "proto/api/say.micro.go", "package api\n"},
		{"package", map[string]string{"api/say.proto": with}, generator.Options{Files: []string{"api/say.proto"}, Package: "example.com/app/api;other"}, "api/say.micro.go", "package other\n"},
		{"package without a name", map[string]string{"api/say.proto": with}, generator.Options{Files: []string{"api/say.proto"}, Package: "example.com/app/my-api"}, "api/say.micro.go", "package my_api\n"},
		{"map", map[string]string{"api/say.proto": with}, generator.Options{Files: []string{"api/say.proto"}, Map: map[string]string{"api/say.proto": "example.com/app/mapped;mapped"}}, "api/say.micro.go", "package mapped\n"},
		{"prefix", map[string]string{"api/say.proto": say}, generator.Options{Files: []string{"api/say.proto"}, Prefix: "Micro"}, "api/say.micro.go", "func NewMicroSayClient("},
		{"import", map[string]string{"api/say.proto": importing, "base/base.proto": base}, generator.Options{Files: []string{"api/say.proto"}}, "api/say.pb.go", "\"example.com/app/base\"\n"},
		{"import mapped", map[string]string{"api/say.proto": importing, "base/base.proto": base}, generator.Options{Files: []string{"api/say.proto"}, Map: map[string]string{"base/base.proto": "example.com/x/y"}}, "api/say.pb.go", "\"example.com/x/y\"\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			o := tc.o
			o.Dir, o.VT = module(t, "example.com/app", false, tc.files), generator.VTOff
			if _, err := generator.Generate(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			if text := read(t, filepath.Join(o.Dir, filepath.FromSlash(tc.path))); !strings.Contains(text, tc.content) {
				t.Errorf("%s lacks %q:\n%s", tc.path, tc.content, text)
			}
		})
	}
}

// TestRefused: errors name their place, and nothing is written.
func TestRefused(t *testing.T) {
	t.Parallel()
	nothing := map[string]string{"say.proto": say}
	for _, tc := range []struct {
		name  string
		files map[string]string
		o     generator.Options
		want  string
		as    any
	}{
		{"syntax", map[string]string{"say.proto": say + "\nmessage {"}, generator.Options{}, "say.proto:13:9: syntax error", new(generator.SourceErrors)},
		{"two mistakes", map[string]string{"say.proto": strings.ReplaceAll(say, "(Request)", "(Nothing)")}, generator.Options{}, "say.proto:6:13: method say.Say.Hello: unknown request type Nothing\nsay.proto:6:", new(generator.SourceErrors)},
		{"import", map[string]string{"say.proto": strings.Replace(say, "package", "import \"nowhere.proto\";\npackage", 1)}, generator.Options{}, "say.proto:3:8: ", new(generator.SourceErrors)},
		{"in what is imported", map[string]string{"say.proto": strings.Replace(say, "package", "import \"b.proto\";\npackage", 1), "b.proto": "nonsense"}, generator.Options{}, "b.proto:1:1: syntax error", new(generator.SourceErrors)},
		{"names", map[string]string{"say.proto": strings.Replace(say, "rpc Hello", "rpc hello(Request) returns (Request);\n  rpc Hello", 1)}, generator.Options{Package: "example.com/say"}, "say.proto:7:3: methods hello and Hello", new(generator.SourceErrors)},
		{"no package", nothing, generator.Options{}, "say.proto:1:1: it has no go_package, and no go.mod above tells its import path of Go: give --package PATH", new(generator.SourceErrors)},
		{"no file", nil, generator.Options{}, "say.proto is not there", new(generator.ArgumentError)},
		{"a folder", map[string]string{"say.proto/x": ""}, generator.Options{}, "say.proto is a folder", new(generator.ArgumentError)},
		{"no import path", nothing, generator.Options{ImportPaths: []string{"nowhere"}}, "-I nowhere: it is no folder", new(generator.ArgumentError)},
		{"outside", map[string]string{"say.proto": say, "sub/x": ""}, generator.Options{ImportPaths: []string{"sub"}}, "say.proto is below no import path: give -I .", new(generator.ArgumentError)},
		{"hidden", map[string]string{"a/say.proto": say, "say.proto": say}, generator.Options{ImportPaths: []string{"a", "."}}, "say.proto is hidden by ", new(generator.ArgumentError)},
		{"map", nothing, generator.Options{Package: "example.com/say", Map: map[string]string{"sya.proto": "x/y"}}, `-M names "sya.proto"`, new(generator.ArgumentError)},
		{"somebody's", map[string]string{"say.proto": say, "say.micro.go": "package say // mine\n"}, generator.Options{Package: "example.com/say"}, "say.micro.go is there, and was not generated: nothing was written", new(*generator.ExistsError)},
		{"in the way", map[string]string{"say.proto": say, "say.micro.go/x": ""}, generator.Options{Package: "example.com/say"}, "say.micro.go", nil},
		{"prefix", nothing, generator.Options{Package: "example.com/say", Prefix: "micro"}, "prefix", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			o := tc.o
			o.Dir, o.Files = folder(t, tc.files), []string{"say.proto"}
			before := list(t, o.Dir)
			_, err := generator.Generate(t.Context(), o)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if tc.as != nil && !errors.As(err, tc.as) {
				t.Errorf("the error is a %T", err)
			}
			same(t, list(t, o.Dir), before...)
		})
	}
}

// TestThroughLink: the folder is reached by another way than the go command would tell it.
func TestThroughLink(t *testing.T) {
	t.Parallel()
	dir, link := module(t, "example.com/app", false, map[string]string{"api/say.proto": say}), filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Skip(err)
	}
	for _, env := range [][]string{nil, os.Environ()} {
		o := generator.Options{Dir: filepath.Join(link, "api"), Files: []string{"say.proto"}, VT: generator.VTOff, Env: env}
		if _, err := generator.Generate(t.Context(), o); err != nil {
			t.Error(err)
		}
	}
}

func TestForce(t *testing.T) {
	t.Parallel()
	dir := module(t, "example.com/app", false, map[string]string{"say.proto": say, "say.pb.go": "package main // mine\n"})
	o := generator.Options{Dir: dir, Files: []string{"say.proto"}, VT: generator.VTOff, Force: true}
	r, err := generator.Generate(t.Context(), o)
	if err != nil || done(r)["say.pb.go"] != generator.Written {
		t.Errorf("%v, %v", r, err)
	}
}

// fakeGo puts a go command first in the PATH that fails for what a case of the shell says, and is the real one else.
func fakeGo(t *testing.T, fails string) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("it has no shell")
	}
	real, err := exec.LookPath("go")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	script := "#!/bin/sh\ncase \"$*\" in " + fails + ") echo 'no network here' >&2; exit 1;; esac\nexec " + real + " \"$@\"\n"
	if err := os.WriteFile(filepath.Join(dir, "go"), []byte(script), 0o777); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
}

// TestOffline: without the network, and with nothing at hand, the error says what to install.
func TestOffline(t *testing.T) {
	dir := module(t, "example.com/app", true, map[string]string{"say.proto": say})
	fakeGo(t, "*protoc-gen-go*")
	_, err := generator.Generate(t.Context(), generator.Options{Dir: dir, Files: []string{"say.proto"}})
	var missing *generator.ToolError
	if !errors.As(err, &missing) {
		t.Fatalf("got %v", err)
	}
	if missing.Install != "go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12" || len(missing.Tried) != 4 {
		t.Errorf("got %+v", missing)
	}
	for i, way := range []string{"go tool google.golang.org/protobuf/cmd/protoc-gen-go: no network here", "go run google.golang.org/protobuf/cmd/protoc-gen-go: no network here",
		"go run google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12: no network here", "protoc-gen-go: protoc-gen-go is not installed"} {
		if missing.Tried[i] != way {
			t.Errorf("tried %q, want %q", missing.Tried[i], way)
		}
	}
	same(t, list(t, dir), "say.proto")
}

// TestWithoutGo: neither the go command nor a generator is there.
func TestWithoutGo(t *testing.T) {
	dir := module(t, "example.com/app", true, map[string]string{"say.proto": say})
	t.Setenv("PATH", t.TempDir())
	_, err := generator.Generate(t.Context(), generator.Options{Dir: dir, Files: []string{"say.proto"}, Package: "example.com/app"})
	var missing *generator.ToolError
	if !errors.As(err, &missing) || missing.Install != "https://go.dev/doc/install" || !strings.Contains(err.Error(), ": go is not installed; ") {
		t.Errorf("got %v", err)
	}
}

// TestOldGenerator: one that knows no editions, as its answer says, is not believed.
func TestOldGenerator(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("it has no shell")
	}
	dir := folder(t, map[string]string{"say.proto": strings.Replace(say, "syntax = \"proto3\"", "edition = \"2023\"", 1)})
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "protoc-gen-go"), []byte("#!/bin/sh\nexec cat >/dev/null\n"), 0o777); err != nil { // an empty answer
		t.Fatal(err)
	}
	cat, err := exec.LookPath("cat")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(cat, filepath.Join(bin, "cat")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin)
	_, err = generator.Generate(t.Context(), generator.Options{Dir: dir, Files: []string{"say.proto"}, Package: "example.com/app"})
	if err == nil || !strings.Contains(err.Error(), "say.proto: the protoc-gen-go that was run does not know EDITION_2023") {
		t.Errorf("got %v", err)
	}
	same(t, list(t, dir), "say.proto")
}

// TestOfflineWithoutFastMethods: vtprotobuf is done without where nobody asked for it, and no file would be left with old methods.
func TestOfflineWithoutFastMethods(t *testing.T) {
	dir := module(t, "example.com/app", false, map[string]string{"say.proto": say})
	o := generator.Options{Dir: dir, Files: []string{"say.proto"}}
	fakeGo(t, "*vtproto*")
	r, err := generator.Generate(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "protoc-gen-go-vtproto could not be run") {
		t.Errorf("warnings %q", r.Warnings)
	}
	same(t, list(t, dir), "say.micro.go", "say.pb.go", "say.proto")
	var missing *generator.ToolError
	o.VT = generator.VTOn
	if _, err := generator.Generate(t.Context(), o); !errors.As(err, &missing) {
		t.Errorf("asked for: %v", err)
	}
	o.VT = generator.VTAuto
	put(t, filepath.Join(dir, "say_vtproto.pb.go"), "// Code generated by protoc-gen-go-vtproto. DO NOT EDIT.\npackage main\n")
	if _, err := generator.Generate(t.Context(), o); !errors.As(err, &missing) {
		t.Errorf("had before: %v", err)
	}
}

// TestMissing: modules that the code imports, and go.mod does not have.
func TestMissing(t *testing.T) {
	t.Parallel()
	dir := folder(t, map[string]string{"go.mod": "module example.com/app\n\ngo 1.26\n", "say.proto": say})
	r, err := generator.Generate(t.Context(), generator.Options{Dir: dir, Files: []string{"say.proto"}})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"google.golang.org/protobuf@v1.36.12", "github.com/planetscale/vtprotobuf@v0.6.1-0.20250313105119-ba97887b0a25", "github.com/cb02dfca/micro@latest"}
	if !slices.Equal(r.Missing, want) {
		t.Errorf("got %q, want %q", r.Missing, want)
	}
}

// TestVersions: the generators that are fetched are those that this module is built and measured with.
func TestVersions(t *testing.T) {
	t.Parallel()
	for file, modules := range map[string][]string{
		"go.mod":                    {"google.golang.org/protobuf"},
		"bench/go.mod":              {"google.golang.org/protobuf", "github.com/planetscale/vtprotobuf"},
		"examples/generated/go.mod": {"google.golang.org/protobuf", "github.com/planetscale/vtprotobuf"},
	} {
		text := read(t, filepath.Join(root, filepath.FromSlash(file)))
		for _, module := range modules {
			if want := module + " " + generator.Versions()[module] + "\n"; !strings.Contains(text, want) {
				t.Errorf("%s lacks %q", file, want)
			}
		}
	}
}
