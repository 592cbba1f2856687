// Package generator makes Go code of .proto files: messages by protoc-gen-go and vtprotobuf, clients and handlers by package stub.
// It needs the go command, which fetches the former two where they are not at hand, and no protoc.
package generator

import (
	"context"
	"errors"
	"fmt"
	"go/token"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"

	"github.com/cb02dfca/micro/internal/stub"
)

// Options say what to generate. Files must be set.
type Options struct {
	// Dir is where relative paths begin. Default the process's folder.
	Dir string
	// ImportPaths are the folders below which files and their imports are found, as protoc's --proto_path. Default Dir.
	ImportPaths []string
	// Files are the .proto files, as paths.
	Files []string
	// Out is the folder below which files are written, by their names below ImportPaths. Default each beside its .proto file.
	Out string
	// Package is the import path of Go that Files get, whatever their go_package says; "path;name" sets the package's name too.
	Package string
	// Map gives import paths of Go for single files, by their names below ImportPaths, as the parameter M of protoc's plugins.
	Map map[string]string
	// Prefix begins the names of stubs, see stub.Generate.
	Prefix string
	// VT says whether vtprotobuf makes methods for messages.
	VT VT
	// Force allows files to be written over that were not generated.
	Force bool
	// Env is the environment of the programs that are run. Default the process's.
	Env []string
	// Tell is told each step. Default nobody.
	Tell func(format string, args ...any)
}

// VT says whether vtprotobuf is used: its methods encode and decode messages without reflection.
type VT int

// VTAuto uses it where it can be had. Where a file was generated with it before, that is the same as VTOn.
const (
	VTAuto VT = iota
	VTOn
	VTOff
)

// Result is what was done.
type Result struct {
	Files []File
	// Warnings tell what is not as it was asked for, or not yet.
	Warnings []string
	// Missing are the modules, as "path@version", that the code imports and go.mod does not have.
	Missing []string
}

// File is a file that was generated.
type File struct {
	Path   string `json:"path"`
	Source string `json:"source"` // the .proto file
	Done   string `json:"done"`   // one of the constants
}

// What was done with a file.
const (
	Written   = "written"
	Unchanged = "unchanged" // it has had the same content already, and was left alone
	Removed   = "removed"   // it was generated earlier, and nothing is any more
)

// run is one run of Generate.
type run struct {
	Options
	sources []source
	set     *set
	module  *module // nil where the files are in none
	tools   *tools
	result  Result
}

// Generate makes the code and writes it: all files, or on an error none. An error of the options is an [ArgumentError], one of the
// .proto files a [SourceErrors], one of a plugin that cannot be run a [*ToolError], one of a file that would be lost an [*ExistsError].
func Generate(ctx context.Context, o Options) (*Result, error) {
	if o.Tell == nil {
		o.Tell = func(string, ...any) {}
	}
	r := &run{Options: o}
	var err error
	if r.sources, err = r.resolve(); err != nil {
		return nil, err
	}
	if r.set, err = compile(ctx, r.importDirs(), r.sources); err != nil {
		return nil, err
	}
	r.tools = &tools{dir: existing(r.sources[0].out), env: o.Env, tell: o.Tell}
	r.module = r.tools.findModule(ctx)
	outputs, err := r.generate(ctx)
	if err != nil {
		return nil, err
	}
	if r.result.Files, err = r.write(outputs); err != nil {
		return nil, err
	}
	r.result.Missing = r.missing()
	return &r.result, nil
}

// generate runs the generators, and gives what they answer.
func (r *run) generate(ctx context.Context) ([]*pluginpb.CodeGeneratorResponse_File, error) {
	params, err := r.parameters()
	if err != nil {
		return nil, err
	}
	messages, err := r.tools.run(ctx, protocGenGo, r.set.request(r.set.names, params))
	if err != nil {
		return nil, err
	}
	outputs := messages.File
	fast, err := r.fastMethods(ctx, params)
	if err != nil {
		return nil, err
	}
	outputs = append(outputs, fast...)
	if r.Prefix != "" {
		params = append(params, "prefix="+r.Prefix)
	}
	req, err := r.set.request(r.set.names, params).decoded()
	if err != nil {
		return nil, err
	}
	stubs, err := stub.Generate(req)
	if err != nil {
		return nil, err
	}
	if stubs.Error != nil {
		return nil, SourceErrors{r.set.shown(stubs.GetError())}
	}
	return append(outputs, stubs.File...), nil
}

// fastMethods runs vtprotobuf, as VT says.
func (r *run) fastMethods(ctx context.Context, params []string) ([]*pluginpb.CodeGeneratorResponse_File, error) {
	if r.VT == VTOff {
		return nil, nil
	}
	names := r.set.withoutEditions()
	if len(names) < len(r.set.names) {
		r.warn("vtprotobuf does not know editions: the messages of packages that use them go without its methods")
	}
	if len(names) == 0 {
		return nil, nil
	}
	rsp, err := r.tools.run(ctx, protocGenGoVT, r.set.request(names, append(slices.Clone(params), "features=marshal+unmarshal+size")))
	var missing *ToolError
	switch {
	case err == nil:
		return rsp.File, nil
	case ctx.Err() == nil && errors.As(err, &missing) && r.VT == VTAuto && !r.hadFastMethods():
		r.warn("%v; without it messages are encoded and decoded by reflection", err)
		return nil, nil
	}
	return nil, err
}

// hadFastMethods reports whether an earlier run has left methods of vtprotobuf: left as they are, they would lose new fields.
func (r *run) hadFastMethods() bool {
	return slices.ContainsFunc(r.sources, func(s source) bool {
		ok, err := generated(s.path(suffixVT))
		return ok && err == nil
	})
}

func (r *run) warn(format string, args ...any) {
	r.result.Warnings = append(r.result.Warnings, fmt.Sprintf(format, args...))
}

// parameters gives what all generators are told: where files go, and the import paths of Go.
func (r *run) parameters() ([]string, error) {
	params := []string{"paths=source_relative"}
	for _, f := range r.set.files {
		path, err := r.goPackage(f)
		if err != nil {
			return nil, err
		}
		if path != "" {
			params = append(params, "M"+f.GetName()+"="+path)
		}
	}
	for name := range r.Map {
		if !slices.ContainsFunc(r.set.files, func(f *descriptorpb.FileDescriptorProto) bool { return f.GetName() == name }) {
			return nil, argument("-M names %q, which is neither generated nor imported", name)
		}
	}
	return params, nil
}

// goPackage gives the import path of Go for a file; none where its go_package tells it. A file without one gets that of the folder it
// is written to, by the go.mod above.
func (r *run) goPackage(f *descriptorpb.FileDescriptorProto) (string, error) {
	if path := r.Map[f.GetName()]; path != "" {
		return path, nil
	}
	named := slices.IndexFunc(r.sources, func(s source) bool { return s.name == f.GetName() })
	if named >= 0 && r.Package != "" {
		return withName(r.Package), nil
	}
	if f.GetOptions().GetGoPackage() != "" {
		return "", nil
	}
	dir := r.set.dirs[f.GetName()]
	if named >= 0 {
		dir = r.sources[named].out
	}
	if dir != "" && r.module != nil {
		if path, ok := r.module.importPath(dir); ok {
			return path, nil
		}
	}
	shown := r.set.shown(f.GetName())
	if named < 0 {
		return "", SourceErrors{fmt.Sprintf("%s:1:1: it has no go_package, and is imported: give its import path of Go, -M %s=PATH", shown, f.GetName())}
	}
	return "", SourceErrors{fmt.Sprintf("%s:1:1: it has no go_package, and no go.mod above tells its import path of Go: give --package PATH", shown)}
}

// withName gives an import path with the package's name, its last element, where it has none: else protogen takes the one of go_package.
func withName(importPath string) string {
	if strings.Contains(importPath, ";") {
		return importPath
	}
	name := strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return r
		}
		return '_'
	}, path.Base(importPath))
	if token.IsKeyword(name) || unicode.IsDigit([]rune(name)[0]) {
		name = "_" + name
	}
	return importPath + ";" + name
}

// missing gives the modules that go.mod lacks.
func (r *run) missing() []string {
	if r.module == nil {
		return nil
	}
	var out []string
	need := []requirement{{protocGenGo.module, protocGenGo.version}}
	if r.wrote(suffixVT) {
		need = append(need, requirement{protocGenGoVT.module, protocGenGoVT.version})
	}
	if r.wrote(stub.Suffix) {
		need = append(need, requirement{frameworkModule, "latest"})
	}
	for _, n := range need {
		if !r.module.has(n.path) {
			out = append(out, n.path+"@"+n.version)
		}
	}
	return out
}

func (r *run) wrote(suffix string) bool {
	return slices.ContainsFunc(r.result.Files, func(f File) bool { return strings.HasSuffix(f.Path, suffix) && f.Done != Removed })
}

// abs makes a path absolute, by Dir.
func (o *Options) abs(path string) (string, error) {
	if !filepath.IsAbs(path) {
		path = filepath.Join(o.Dir, path)
	}
	return filepath.Abs(path)
}
