package program

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/cb02dfca/micro/pkg/registry"
)

// sidecar is how the name of a file with an endpoint's schemas ends.
const sidecar = ".schema.json"

// maxSidecar is the limit of such a file, in bytes.
const maxSidecar = 1 << 20

// Entry is one executable of a folder.
type Entry struct {
	// Endpoint is its name: Say.Hello for the files Say.Hello and Say.Hello.sh.
	Endpoint string
	// Path is the absolute path of the file.
	Path string
	// Request and Response are JSON Schemas, nil where none is given. They are JSON objects, and not checked further.
	Request, Response json.RawMessage
}

// Note tells of a file that serves nothing, and why.
type Note struct{ File, Reason string }

// Scan reads a folder of executables: each that is executable is an endpoint of the file's name, without the extension
// of a script or program. A file Say.Hello.schema.json beside it gives the schemas, {"request":{…},"response":{…}}, or
// the request's alone. Hidden files and folders are passed over, other files with a note. Two files for one endpoint,
// and a schema that is none, are errors that wrap ErrInvalid.
func Scan(dir string) ([]Entry, []Note, error) {
	dir, err := filepath.Abs(dir) // a bare name would be looked for in PATH
	if err != nil {
		return nil, nil, fmt.Errorf("program: %w", err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("program: %w", err)
	}
	var (
		entries []Entry
		notes   []Note
		schemas = map[string]string{}
	)
	for _, f := range files {
		name := f.Name()
		path := filepath.Join(dir, name)
		if strings.HasPrefix(name, ".") || f.IsDir() {
			continue
		}
		if endpoint, ok := strings.CutSuffix(name, sidecar); ok {
			schemas[endpoint] = path
			continue
		}
		if why := unfit(path); why != "" {
			notes = append(notes, Note{name, why})
			continue
		}
		entries = append(entries, Entry{Endpoint: EndpointOf(name), Path: path})
	}
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.Endpoint, b.Endpoint) })
	for i := 1; i < len(entries); i++ {
		if a, b := entries[i-1], entries[i]; a.Endpoint == b.Endpoint {
			return nil, nil, fmt.Errorf("%w: %s and %s are both endpoint %s: rename one", ErrInvalid, a.Path, b.Path, a.Endpoint)
		}
	}
	if len(entries) > registry.MaxEndpoints {
		return nil, nil, fmt.Errorf("%w: %s holds %d executables, limit %d", ErrInvalid, dir, len(entries), registry.MaxEndpoints)
	}
	orphans, err := attach(entries, schemas)
	return entries, append(notes, orphans...), err
}

// unfit says why the file is no endpoint; "" where it is one.
func unfit(path string) string {
	info, err := os.Stat(path) // of what a link leads to
	name := EndpointOf(filepath.Base(path))
	switch {
	case err != nil:
		return "cannot be read"
	case !info.Mode().IsRegular():
		return "is no regular file"
	case !executable(path, info):
		return "is not executable"
	case strings.HasPrefix(name, "Debug."):
		return "names below Debug. belong to the framework"
	case CheckEndpoint(name) != nil:
		return "is no name of an endpoint, such as Say.Hello"
	}
	return ""
}

func executable(path string, info fs.FileInfo) bool {
	if runtime.GOOS == "windows" {
		return slices.Contains([]string{".exe", ".com", ".bat", ".cmd"}, strings.ToLower(filepath.Ext(path)))
	}
	return info.Mode().Perm()&0o111 != 0
}

// EndpointOf gives the name of a file without the extension of a script or program. Another ending is part of the name,
// as Hello is of Say.Hello, and so is one in mixed case, as Out is of Data.Out.
func EndpointOf(file string) string {
	ext := filepath.Ext(file)
	lower := strings.ToLower(ext)
	if ext != lower && ext != strings.ToUpper(ext) && runtime.GOOS != "windows" { // whose programs all have one
		return file
	}
	switch lower {
	case ".sh", ".bash", ".zsh", ".fish", ".ps1", ".py", ".rb", ".pl", ".php", ".lua", ".js", ".mjs", ".cjs", ".ts", ".tcl",
		".awk", ".jq", ".r", ".exe", ".com", ".bat", ".cmd", ".bin", ".out":
		return strings.TrimSuffix(file, ext)
	}
	return file
}

// CheckEndpoint gives an error that wraps ErrInvalid where name cannot be an endpoint's: letters, digits, '.', '_' and
// '-', with a letter or digit at both ends.
func CheckEndpoint(name string) error {
	if !registry.ValidName(name) {
		return fmt.Errorf("%w: endpoint %q: want letters, digits, '.', '_' or '-', %d bytes at most", ErrInvalid, name, registry.MaxName)
	}
	return nil
}

// attach reads the schemas of the entries, and notes those of none.
func attach(entries []Entry, schemas map[string]string) (notes []Note, err error) {
	for i := range entries {
		e := &entries[i]
		path, ok := schemas[e.Endpoint]
		if !ok {
			continue
		}
		delete(schemas, e.Endpoint)
		if e.Request, e.Response, err = readSidecar(path); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, path, err)
		}
	}
	for endpoint, path := range schemas {
		notes = append(notes, Note{filepath.Base(path), "there is no executable " + endpoint})
	}
	slices.SortFunc(notes, func(a, b Note) int { return strings.Compare(a.File, b.File) })
	return notes, nil
}

func readSidecar(path string) (request, response json.RawMessage, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSidecar+1))
	if err != nil {
		return nil, nil, err
	}
	if len(data) > maxSidecar {
		return nil, nil, fmt.Errorf("over %s", size(maxSidecar))
	}
	return parseSidecar(data)
}

func parseSidecar(data []byte) (request, response json.RawMessage, err error) {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, nil, fmt.Errorf("not a JSON object: %w", err)
	}
	if all == nil {
		return nil, nil, errors.New("want a JSON Schema, which is an object")
	}
	pair := len(all) > 0
	for key := range all {
		pair = pair && (key == "request" || key == "response" || key == "$schema")
	}
	if _, alone := all["$schema"]; !pair || alone && len(all) == 1 {
		return data, nil, nil
	}
	for _, s := range []struct {
		key string
		to  *json.RawMessage
	}{{"request", &request}, {"response", &response}} {
		raw, ok := all[s.key]
		if !ok {
			continue
		}
		var object map[string]json.RawMessage
		if json.Unmarshal(raw, &object) != nil || object == nil {
			return nil, nil, fmt.Errorf("%s: want a JSON Schema, which is an object", s.key)
		}
		*s.to = raw
	}
	return request, response, nil
}
