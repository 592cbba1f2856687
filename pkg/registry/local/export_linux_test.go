package local

import (
	"os"

	"github.com/cb02dfca/micro/pkg/registry"
)

var NetworkFSType = networkFSType

// ParseEvents gives the names in the events of an inotify instance.
func ParseEvents(data []byte) map[string]bool { return parseEvents(data).names }

// PublishLinked registers n where a file system has no exclusive rename. The node lives until the file is closed.
func PublishLinked(dir string, n registry.Node) (*os.File, error) {
	d, err := openFolder(place{path: dir})
	if err != nil {
		return nil, err
	}
	defer d.close()
	data, err := encode(n, thisSpace(), os.Getpid())
	if err != nil {
		return nil, err
	}
	name := fileName(n.ID, thisSpace())
	temp := tempPrefix + name + ".x"
	f, err := d.create(temp, data)
	if err != nil {
		return nil, err
	}
	if err := linkExclusive(d.fd, temp, name); err != nil {
		d.discard(temp, f)
		return nil, err
	}
	return f, nil
}
