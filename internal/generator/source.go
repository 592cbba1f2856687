package generator

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/options"
	"github.com/bufbuild/protocompile/protoutil"
	"github.com/bufbuild/protocompile/reporter"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

// source is a .proto file that was named.
type source struct {
	given string // the path as it was given
	name  string // below its import path, with slashes: what others import it by
	out   string // the folder that its code goes to, absolute
}

// path gives the path of a file that is generated from s.
func (s *source) path(suffix string) string {
	return filepath.Join(s.out, strings.TrimSuffix(path.Base(s.name), ".proto")+suffix)
}

// SourceErrors are mistakes in .proto files, each as "file:line:column: text".
type SourceErrors []string

func (e SourceErrors) Error() string { return strings.Join(e, "\n") }

// ArgumentError is a mistake in Options.
type ArgumentError string

func (e ArgumentError) Error() string { return string(e) }

func argument(format string, args ...any) error { return ArgumentError(fmt.Sprintf(format, args...)) }

func (o *Options) importDirs() []string {
	if len(o.ImportPaths) == 0 {
		return []string{or(o.Dir, ".")}
	}
	var dirs []string
	for _, p := range o.ImportPaths {
		dir, err := o.abs(p)
		if err != nil { // there is no current folder
			dir = p
		}
		dirs = append(dirs, dir)
	}
	return dirs
}

// resolve finds the files below the import paths.
func (o *Options) resolve() ([]source, error) {
	for _, p := range o.ImportPaths {
		dir, err := o.abs(p)
		if err != nil {
			return nil, err
		}
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			return nil, argument("-I %s: it is no folder", p)
		}
	}
	var sources []source
	for _, given := range o.Files {
		s, err := o.find(given)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(sources, func(other source) bool { return other.name == s.name }) {
			sources = append(sources, s)
		}
	}
	return sources, nil
}

// find gives the source of a path, or else of a name below an import path, as protoc takes them.
func (o *Options) find(given string) (source, error) {
	file, err := o.locate(given)
	if err != nil {
		return source{}, err
	}
	switch info, err := os.Stat(file); {
	case errors.Is(err, os.ErrNotExist):
		return source{}, argument("%s is not there", given)
	case err != nil:
		return source{}, err
	case info.IsDir():
		return source{}, argument("%s is a folder: name the .proto files", given)
	case !strings.HasSuffix(given, ".proto"):
		return source{}, argument("%s is no .proto file", given)
	}
	for _, dir := range o.importDirs() {
		if dir, err = filepath.Abs(dir); err != nil {
			return source{}, err
		}
		rel, err := filepath.Rel(dir, file)
		if err != nil || !filepath.IsLocal(rel) {
			continue
		}
		s := source{given: given, name: filepath.ToSlash(rel), out: filepath.Dir(file)}
		if o.Out != "" {
			if s.out, err = o.abs(filepath.Join(o.Out, filepath.Dir(rel))); err != nil {
				return source{}, err
			}
		}
		return s, o.hidden(s, file)
	}
	return source{}, argument("%s is below no import path: give -I %s", given, filepath.Dir(given))
}

// locate gives the file that is meant by a path or a name.
func (o *Options) locate(given string) (string, error) {
	file, err := o.abs(given)
	if _, statErr := os.Stat(file); err != nil || statErr == nil || filepath.IsAbs(given) {
		return file, err
	}
	for _, dir := range o.importDirs() {
		below := filepath.Join(dir, given)
		if _, err := os.Stat(below); err == nil {
			return filepath.Abs(below)
		}
	}
	return file, nil
}

// hidden refuses a file in whose place another would be compiled: one of the same name below an earlier import path.
func (o *Options) hidden(s source, file string) error {
	want, err := os.Stat(file)
	if err != nil {
		return err
	}
	for _, dir := range o.importDirs() {
		if found, err := os.Stat(filepath.Join(dir, filepath.FromSlash(s.name))); err == nil {
			if !os.SameFile(found, want) {
				return argument("%s is hidden by %s, which an earlier -I has under the same name", s.given, filepath.Join(dir, filepath.FromSlash(s.name)))
			}
			return nil
		}
	}
	return nil
}

// set is files, compiled, with what they import.
type set struct {
	names    []string                            // of the files that are generated
	files    []*descriptorpb.FileDescriptorProto // each behind what it imports
	dirs     map[string]string                   // where a file was found, for those that were
	resolved map[string]string                   // the paths to show for names
}

// maxErrors is how many mistakes are told.
const maxErrors = 20

// compile compiles sources. The errors are those of all of them, as far as the compiler finds them at once.
func compile(ctx context.Context, dirs []string, sources []source) (*set, error) {
	s := &set{dirs: map[string]string{}, resolved: map[string]string{}}
	for _, src := range sources {
		s.names = append(s.names, src.name)
		s.resolved[src.name] = src.given
	}
	var mu sync.Mutex
	var found SourceErrors
	c := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: dirs}),
		SourceInfoMode: protocompile.SourceInfoStandard,
		Reporter: reporter.NewReporter(func(err reporter.ErrorWithPos) error {
			mu.Lock()
			defer mu.Unlock()
			at := err.GetPosition()
			found = append(found, fmt.Sprintf("%s:%d:%d: %v", s.shown(at.Filename), max(at.Line, 1), max(at.Col, 1), err.Unwrap()))
			if len(found) == maxErrors {
				return err
			}
			return nil
		}, nil),
	}
	compiled, err := c.Compile(ctx, s.names...)
	switch {
	case len(found) > 0:
		return nil, found
	case err != nil && ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, SourceErrors{s.shown(err.Error())}
	}
	seen := map[string]bool{}
	for _, f := range compiled {
		if err := s.add(f, dirs, seen); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// add adds a file behind what it imports.
func (s *set) add(f protoreflect.FileDescriptor, dirs []string, seen map[string]bool) error {
	if seen[f.Path()] {
		return nil
	}
	seen[f.Path()] = true
	for i := range f.Imports().Len() {
		imported := f.Imports().Get(i)
		if imported.IsPlaceholder() {
			return fmt.Errorf("%s imports %s, which was not found", f.Path(), imported.Path())
		}
		if err := s.add(imported.FileDescriptor, dirs, seen); err != nil {
			return err
		}
	}
	for _, dir := range dirs {
		file := filepath.Join(dir, filepath.FromSlash(f.Path()))
		if _, err := os.Stat(file); err == nil {
			s.dirs[f.Path()] = filepath.Dir(file)
			break
		} else if !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	s.files = append(s.files, protoutil.ProtoFromFileDescriptor(f))
	return nil
}

// shown puts the path that was given in the place of a name at the beginning of a text.
func (s *set) shown(text string) string {
	for name, given := range s.resolved {
		if rest, ok := strings.CutPrefix(text, name); ok && (rest == "" || rest[0] == ':') {
			return given + rest
		}
	}
	return text
}

// withoutEditions gives the names of the files that are generated and whose packages have no file that uses editions: the methods of
// a package's messages call each other.
func (s *set) withoutEditions() []string {
	editions, packages := map[string]bool{}, map[string]string{}
	for _, f := range s.files {
		packages[f.GetName()] = f.GetPackage()
		if f.GetSyntax() == "editions" && slices.Contains(s.names, f.GetName()) {
			editions[f.GetPackage()] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(s.names), func(name string) bool { return editions[packages[name]] })
}

// request is what a generator is asked.
type request struct {
	names  []string
	params []string
	files  []*descriptorpb.FileDescriptorProto
}

func (s *set) request(names, params []string) request { return request{names, params, s.files} }

// encoded gives the CodeGeneratorRequest. As protoc has it, options that are to be retained in the source alone are not in the files
// that are generated.
func (r request) encoded() ([]byte, error) {
	out := &pluginpb.CodeGeneratorRequest{FileToGenerate: r.names, Parameter: proto.String(strings.Join(r.params, ","))}
	for _, f := range r.files {
		if slices.Contains(r.names, f.GetName()) {
			out.SourceFileDescriptors = append(out.SourceFileDescriptors, f)
			stripped, err := options.StripSourceRetentionOptionsFromFile(f)
			if err != nil {
				return nil, err
			}
			f = stripped
		}
		out.ProtoFile = append(out.ProtoFile, f)
	}
	return proto.Marshal(out)
}

// decoded gives the same as a message, in which the options of others are unknown fields: as a plugin gets it.
func (r request) decoded() (*pluginpb.CodeGeneratorRequest, error) {
	data, err := r.encoded()
	if err != nil {
		return nil, err
	}
	req := new(pluginpb.CodeGeneratorRequest)
	return req, proto.Unmarshal(data, req)
}

func or(s, instead string) string {
	if s == "" {
		return instead
	}
	return s
}
