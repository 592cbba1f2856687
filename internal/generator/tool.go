package generator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/pluginpb"
)

const frameworkModule = "github.com/cb02dfca/micro"

// The suffixes of what others generate.
const (
	suffixGo = ".pb.go"
	suffixVT = "_vtproto.pb.go"
)

// tool is a plugin of protoc that is written in Go. The version is that which the tests are run with.
type tool struct {
	name    string
	module  string
	version string
	dir     string // of its program in the module
}

func (t tool) pkg() string { return path.Join(t.module, t.dir) }

var (
	protocGenGo   = tool{"protoc-gen-go", "google.golang.org/protobuf", "v1.36.12", "cmd/protoc-gen-go"}
	protocGenGoVT = tool{"protoc-gen-go-vtproto", "github.com/planetscale/vtprotobuf", "v0.6.1-0.20250313105119-ba97887b0a25", "cmd/protoc-gen-go-vtproto"}
)

// ToolError is a plugin that could not be run in any way.
type ToolError struct {
	Name    string
	Install string   // the command that would install it, or where to get Go
	Tried   []string // what was tried, each with its outcome
}

func (e *ToolError) Error() string {
	return fmt.Sprintf("%s could not be run: %s", e.Name, strings.Join(e.Tried, "; "))
}

// requirement is a module that go.mod asks for.
type requirement struct{ path, version string }

// module is what a go.mod says.
type module struct {
	dir, path string
	requires  []string
	tools     []string
}

func (m *module) has(path string) bool { return m.path == path || slices.Contains(m.requires, path) }

// importPath gives the import path of a folder, with the name of the package that is in it where that is another than the path's end.
func (m *module) importPath(dir string) (string, bool) {
	rel, err := filepath.Rel(m.dir, dir)
	if err != nil || !filepath.IsLocal(rel) {
		return "", false
	}
	p := path.Join(m.path, filepath.ToSlash(rel))
	if name := packageIn(dir); name != "" && name != path.Base(p) {
		p += ";" + name
	}
	return p, true
}

// packageIn gives the name of the package whose files are in a folder; none where there are none.
func packageIn(dir string) string {
	files, _ := filepath.Glob(filepath.Join(dir, "*.go")) // a pattern that is none finds nothing
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		if f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.PackageClauseOnly); err == nil {
			return f.Name.Name
		}
	}
	return ""
}

// tools runs plugins.
type tools struct {
	dir    string // where the go command is run
	env    []string
	tell   func(format string, args ...any)
	module *module
}

// findModule reads the go.mod above the folder; nil where there is none.
func (t *tools) findModule(ctx context.Context) *module {
	out, _, err := t.command(ctx, nil, "go", "env", "GOMOD")
	file := strings.TrimSpace(string(out))
	if err != nil || file == "" || file == os.DevNull {
		return nil
	}
	if out, _, err = t.command(ctx, nil, "go", "mod", "edit", "-json"); err != nil {
		return nil
	}
	var said struct {
		Module  struct{ Path string }
		Require []struct{ Path string }
		Tool    []struct{ Path string }
	}
	if json.Unmarshal(out, &said) != nil {
		return nil
	}
	t.module = &module{dir: filepath.Dir(file), path: said.Module.Path}
	for _, r := range said.Require {
		t.module.requires = append(t.module.requires, r.Path)
	}
	for _, tool := range said.Tool {
		t.module.tools = append(t.module.tools, tool.Path)
	}
	return t.module
}

// ways are the command lines that run a tool, in the order in which they are tried: as the user's go.mod has it, in the version that
// the code will be linked with; then the one that this package was tested with; then whatever is installed.
func (t *tools) ways(p tool) [][]string {
	var ways [][]string
	if t.module != nil && slices.Contains(t.module.tools, p.pkg()) {
		ways = append(ways, []string{"go", "tool", p.pkg()})
	}
	if t.module != nil && t.module.has(p.module) {
		ways = append(ways, []string{"go", "run", p.pkg()})
	}
	return append(ways, []string{"go", "run", p.pkg() + "@" + p.version}, []string{p.name})
}

// run has a plugin answer a request.
func (t *tools) run(ctx context.Context, p tool, r request) (*pluginpb.CodeGeneratorResponse, error) {
	in, err := r.encoded()
	if err != nil {
		return nil, err
	}
	failed := &ToolError{Name: p.name, Install: "go install " + p.pkg() + "@" + p.version}
	for _, way := range t.ways(p) {
		t.tell("%s for %s", strings.Join(way, " "), strings.Join(r.names, ", "))
		out, said, err := t.command(ctx, in, way[0], way[1:]...)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			if errors.Is(err, exec.ErrNotFound) {
				said = way[0] + " is not installed"
				if way[0] == "go" {
					failed.Install = "https://go.dev/doc/install"
				}
			}
			failed.Tried = append(failed.Tried, strings.Join(way, " ")+": "+or(said, err.Error()))
			t.tell("that failed: %s", or(said, err.Error()))
			continue
		}
		rsp := new(pluginpb.CodeGeneratorResponse)
		if err := proto.Unmarshal(out, rsp); err != nil {
			return nil, fmt.Errorf("%s: its answer is no CodeGeneratorResponse: %w", p.name, err)
		}
		if rsp.Error != nil {
			return nil, fmt.Errorf("%s: %s", p.name, rsp.GetError())
		}
		return rsp, r.understood(p, rsp)
	}
	return nil, failed
}

// understood refuses the answer of a generator that does not know the edition of a file: a compiler is to look at that, and the generator
// takes what it is asked for something else.
func (r request) understood(p tool, rsp *pluginpb.CodeGeneratorResponse) error {
	knows := rsp.GetSupportedFeatures()&uint64(pluginpb.CodeGeneratorResponse_FEATURE_SUPPORTS_EDITIONS) != 0
	for _, f := range r.files {
		if f.GetSyntax() != "editions" || !slices.Contains(r.names, f.GetName()) {
			continue
		}
		if !knows || int32(f.GetEdition()) > rsp.GetMaximumEdition() {
			return fmt.Errorf("%s: the %s that was run does not know %s: go get %s@%s", f.GetName(), p.name, f.GetEdition(), p.module, p.version)
		}
	}
	return nil
}

// leaveDelay is how long the streams of a program may stay open that has ended, or been ended.
const leaveDelay = 2 * time.Second

// command runs a program, and gives its output and the line of its standard error that tells most.
func (t *tools) command(ctx context.Context, in []byte, name string, args ...string) (out []byte, said string, err error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.WaitDelay = t.dir, leaveDelay
	if t.env != nil { // the go command tells paths as PWD has them, links and all
		cmd.Env = append(slices.Clip(t.env), "PWD="+t.dir)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &stdout, &stderr
	err = cmd.Run()
	return stdout.Bytes(), reason(stderr.String()), err
}

// reason gives the first line of a program's complaint that is no progress of the go command.
func reason(stderr string) string {
	for line := range strings.Lines(stderr) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "go: downloading") && !strings.HasPrefix(line, "exit status") {
			return line
		}
	}
	return ""
}

// existing gives the nearest folder above a path that is there.
func existing(dir string) string {
	for {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return dir
		}
		dir = parent
	}
}
