package local

import (
	"maps"
	"slices"

	"github.com/cb02dfca/micro/pkg/registry"
)

// Kill ends r as the end of its process does: its descriptors are closed, and nothing is withdrawn.
func (r *Registry) Kill() {
	r.mu.Lock()
	r.closed = true
	close(r.done)
	for h := range maps.Values(r.held) {
		_ = h.file.Close()
	}
	clear(r.held)
	r.mu.Unlock()
	_ = r.Close()
}

// Path is where the node with that id stands, or would stand.
func (r *Registry) Path(id string) string {
	return place{path: r.dir.path}.path + "/" + fileName(id, r.space)
}

// PathElsewhere is where it would stand if it were registered in another network namespace.
func (r *Registry) PathElsewhere(id string) string {
	return r.dir.path + "/" + fileName(id, space{Boot: r.space.Boot, Namespace: "net:[1]"})
}

// RecordElsewhere is the content of n's file, if a process of another network namespace wrote it.
func (r *Registry) RecordElsewhere(n registry.Node) []byte {
	data, err := encode(n, space{Boot: r.space.Boot, Namespace: "net:[1]"}, 1)
	if err != nil {
		panic(err)
	}
	return data
}

// Record is the content of n's file.
func (r *Registry) Record(n registry.Node) []byte {
	data, err := encode(n, r.space, 1)
	if err != nil {
		panic(err)
	}
	return data
}

// RestoreNow does what an owner does each few seconds.
func (r *Registry) RestoreNow() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range slices.Collect(maps.Values(r.held)) {
		r.restore(h)
	}
}

// DecodeNode reads a record of the file name, as the reader of a folder does.
func DecodeNode(name string, data []byte) (registry.Node, error) {
	rec, err := decode(name, data, thisSpace())
	return rec.Node, err
}

// FileName is the name of a node's file.
func FileName(id string) string { return fileName(id, thisSpace()) }
