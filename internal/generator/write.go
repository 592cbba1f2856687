package generator

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"google.golang.org/protobuf/types/pluginpb"

	"github.com/cb02dfca/micro/internal/stub"
)

// ExistsError is a file in the way that was not generated.
type ExistsError struct{ Path string }

func (e *ExistsError) Error() string {
	return e.Path + " is there, and was not generated: nothing was written"
}

// step is what is to be done with one file.
type step struct {
	File
	content []byte
	temp    string // where the content stands until all are there
}

// write puts outputs in their places. First all files are written beside their places, then they get their names: what fails
// before leaves everything as it was.
func (r *run) write(outputs []*pluginpb.CodeGeneratorResponse_File) (files []File, err error) {
	steps, err := r.plan(outputs)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, s := range steps {
			if s.temp != "" {
				_ = os.Remove(s.temp) // it is gone where it got its name
			}
		}
	}()
	for i := range steps {
		if err := steps[i].prepare(); err != nil {
			return nil, err
		}
	}
	for _, s := range steps {
		switch s.Done {
		case Written:
			err = os.Rename(s.temp, s.Path)
		case Removed:
			err = os.Remove(s.Path)
		}
		if err != nil {
			return nil, err
		}
		s.Path = r.relative(s.Path)
		files = append(files, s.File)
	}
	return files, nil
}

// plan says what is to be done with each file, and refuses what would lose one that somebody wrote.
func (r *run) plan(outputs []*pluginpb.CodeGeneratorResponse_File) ([]step, error) {
	var steps []step
	content := map[string][]byte{}
	for _, o := range outputs {
		content[o.GetName()] = []byte(o.GetContent())
	}
	for _, src := range r.sources {
		for _, suffix := range []string{suffixGo, suffixVT, stub.Suffix} {
			name := strings.TrimSuffix(src.name, ".proto") + suffix
			s := step{File: File{Path: src.path(suffix), Source: src.given}, content: content[name]}
			known := content[name] != nil
			delete(content, name)
			if err := s.decide(known, r.Force); err != nil {
				var exists *ExistsError
				if errors.As(err, &exists) {
					exists.Path = r.relative(exists.Path)
				}
				return nil, err
			}
			if s.Done != "" {
				steps = append(steps, s)
			}
		}
	}
	for name := range content {
		return nil, fmt.Errorf("a plugin answered with a file that belongs to none of the .proto files: %s", path.Base(name))
	}
	return steps, nil
}

// decide compares what is to be there with what is.
func (s *step) decide(wanted, force bool) error {
	former, err := os.ReadFile(s.Path)
	absent := errors.Is(err, os.ErrNotExist)
	if err != nil && !absent {
		return err
	}
	ours := isGenerated(bytes.NewReader(former))
	switch {
	case !wanted && (absent || !ours):
	case !wanted:
		s.Done = Removed
	case absent:
		s.Done = Written
	case bytes.Equal(former, s.content):
		s.Done = Unchanged
	case !ours && !force:
		return &ExistsError{s.Path}
	default:
		s.Done = Written
	}
	return nil
}

// prepare writes the content beside its place.
func (s *step) prepare() error {
	if s.Done != Written {
		return nil
	}
	dir := filepath.Dir(s.Path)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	s.temp = filepath.Join(dir, "."+filepath.Base(s.Path)+"."+rand.Text())
	f, err := os.OpenFile(s.temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	_, err = f.Write(s.content)
	if info, statErr := os.Stat(s.Path); statErr == nil { // it keeps the rights that it has
		err = errors.Join(err, f.Chmod(info.Mode().Perm()))
	}
	return errors.Join(err, f.Close())
}

// relative gives a path as people want to read it: from Dir on where it lies below.
func (r *run) relative(file string) string {
	dir, err := r.abs("")
	if err != nil {
		return file
	}
	if rel, err := filepath.Rel(dir, file); err == nil && filepath.IsLocal(rel) {
		return rel
	}
	return file
}

// mark is the line by which generated code of Go is known, see go help generate.
var mark = regexp.MustCompile(`^// Code generated .* DO NOT EDIT\.$`)

// generated reports whether a file is there and was generated.
func generated(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	return isGenerated(f), nil
}

// isGenerated looks for the mark above the package clause.
func isGenerated(r io.Reader) bool {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		switch line := strings.TrimRight(lines.Text(), "\r"); {
		case mark.MatchString(line):
			return true
		case strings.HasPrefix(line, "package "):
			return false
		}
	}
	return false
}
