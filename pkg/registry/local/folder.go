package local

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/cb02dfca/micro/pkg/registry"
)

// place is where the folder is, or is to be. The folder is opened anew for each use: it may have been removed and made
// again, and an open descriptor would keep the kernel from saying so.
type place struct {
	path    string
	private bool // a default folder: nobody else may look in
}

// choose gives the folder at dir, or the first default folder that can be used.
func choose(dir string, log *slog.Logger) (place, error) {
	if dir != "" {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return place{}, unavailable("folder %s: %w", dir, err)
		}
		p := place{path: abs}
		return p, p.ensure()
	}
	var failed error
	for _, path := range defaultPaths() {
		p := place{path: path, private: true}
		err := p.ensure()
		switch {
		case err == nil && failed != nil:
			log.Warn("registry: local: the preferred folder cannot be used; processes that use it are not seen", "used", path, "error", failed)
			fallthrough
		case err == nil:
			return p, nil
		case failed == nil:
			failed = err
		default:
			failed = fmt.Errorf("%w; %w", failed, err)
		}
	}
	if failed == nil {
		failed = unavailable("this user has no folder for it: name one")
	}
	return place{}, failed
}

// ensure makes the folder where it is missing, and checks that it can be used.
func (p place) ensure() error {
	d, err := p.openOrMake()
	if err == nil {
		d.close()
	}
	return err
}

// openOrMake opens the folder, and makes it where it is missing.
func (p place) openOrMake() (*folder, error) {
	d, err := openFolder(p)
	if !isMissing(err) {
		return d, err
	}
	if err := os.MkdirAll(filepath.Dir(p.path), 0o700); err != nil {
		return nil, unavailable("%w", err)
	}
	if err := os.Mkdir(p.path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, unavailable("%w", err)
	}
	return openFolder(p)
}

// state is what an entry of the folder turned out to be.
type state int

const (
	gone    state = iota // it is not there any more
	alive                // a file of ours, locked by its owner
	dead                 // a file of ours whose owner is gone
	strange              // nothing of ours
)

// sight is a look at one entry of the folder.
type sight struct {
	state state
	data  []byte // the content of what is alive or dead
	why   string // of what is strange
}

// identity tells files apart, also of one name. The zero identity is no file's.
type identity struct{ device, number uint64 }

// errBusy: somebody else is removing a file just now.
var errBusy = errors.New("another process is changing the folder")

func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// unavailable makes an error that wraps registry.ErrUnavailable, and what format wraps.
func unavailable(format string, args ...any) error {
	return fmt.Errorf("%w: local: %w", registry.ErrUnavailable, fmt.Errorf(format, args...))
}
