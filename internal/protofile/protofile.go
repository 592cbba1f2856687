// Package protofile reads .proto files, without protoc.
package protofile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/reporter"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// ErrSource is wrapped by the error of a file that is wrong, as "FILE:LINE:COLUMN: ...".
var ErrSource = errors.New("protofile: a .proto file is wrong")

// Load compiles files. paths are the folders in which files, and what they import, are found, first those that come first; none is
// the current folder. A file's own folder is looked in last. The well-known imports are always there. Comments are kept.
func Load(ctx context.Context, files, paths []string) ([]protoreflect.FileDescriptor, error) {
	if len(paths) == 0 {
		paths = []string{"."}
	}
	var names []string
	for _, file := range files {
		info, err := os.Stat(file)
		switch {
		case err == nil && info.IsDir():
			return nil, fmt.Errorf("protofile: %s is a folder", file)
		case err != nil && !filepath.IsAbs(file) && isBelow(file, paths): // as protoc's arguments may
			names = append(names, filepath.ToSlash(file))
			continue
		case err != nil:
			return nil, fmt.Errorf("protofile: %w", err)
		}
		name, ok := below(file, paths)
		if !ok {
			paths = append(paths, filepath.Dir(file))
			name = filepath.Base(file)
		}
		names = append(names, name)
	}
	for _, file := range files {
		paths = append(paths, filepath.Dir(file))
	}
	c := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: paths}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	linked, err := c.Compile(ctx, names...)
	if err != nil {
		return nil, explain(err)
	}
	out := make([]protoreflect.FileDescriptor, len(linked))
	for i, f := range linked {
		out[i] = f
	}
	return out, nil
}

// isBelow reports whether there is a file of that name below one of the paths.
func isBelow(file string, paths []string) bool {
	return slices.ContainsFunc(paths, func(path string) bool {
		info, err := os.Stat(filepath.Join(path, file))
		return err == nil && !info.IsDir()
	})
}

// below gives a file's name as a file that imports it has it: relative to the first of the paths that it stands below.
func below(file string, paths []string) (string, bool) {
	absolute, err := filepath.Abs(file)
	if err != nil {
		return "", false
	}
	for _, path := range paths {
		folder, err := filepath.Abs(path)
		if err != nil {
			continue
		}
		if name, err := filepath.Rel(folder, absolute); err == nil && name != ".." && !strings.HasPrefix(name, ".."+string(filepath.Separator)) {
			return filepath.ToSlash(name), true
		}
	}
	return "", false
}

// explain marks what is wrong with a file.
func explain(err error) error {
	var at reporter.ErrorWithPos
	if errors.As(err, &at) {
		return &sourceError{fmt.Errorf("protofile: %w", err)}
	}
	return fmt.Errorf("protofile: %w", err)
}

type sourceError struct{ error }

func (e *sourceError) Is(target error) bool { return target == ErrSource }
func (e *sourceError) Unwrap() error        { return e.error }
