package local

import (
	"bytes"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/cb02dfca/micro/pkg/registry"
)

// reader reads records, and remembers what it read: a file is parsed once for each content, and each oddity is logged
// once. Its methods may be called concurrently.
type reader struct {
	space space
	key   string
	log   *slog.Logger

	deaths deaths

	mu     sync.Mutex
	parsed map[string]parsed // by file name
	said   map[string]string // what was logged, by file name
}

type parsed struct {
	data string
	rec  record
	bad  bool
}

// scanned is a whole look at the folder.
type scanned struct {
	folder identity // zero where there is none
	nodes  []registry.Node
	names  map[string]string // file name to node id
}

func (r *reader) init(s space, log *slog.Logger) {
	r.space, r.key, r.log = s, s.key(), log
	r.parsed, r.said = map[string]parsed{}, map[string]string{}
}

// scan looks at every entry of the folder, and removes the files of dead owners. A folder that is not there is empty.
// Where a service is named, others' nodes may be left out: their records need not be parsed for it.
func (r *reader) scan(p place, service string) (scanned, error) {
	out := scanned{nodes: []registry.Node{}, names: map[string]string{}}
	d, err := openFolder(p)
	if isMissing(err) {
		r.forget(nil)
		return out, nil
	}
	if err != nil {
		return scanned{}, err
	}
	defer d.close()
	out.folder = d.id
	names, err := d.names(MaxFiles + 1)
	if err != nil {
		return scanned{}, err
	}
	if len(names) > MaxFiles {
		r.say("", "the folder holds more files than are read, some nodes do not show", "limit", MaxFiles)
		names = names[:MaxFiles]
	}
	buf, mark := make([]byte, 0, 4<<10), serviceMark(service)
	for _, name := range names {
		switch kindOf(name, r.key) {
		case foreign:
			r.say(name, "not a file of this registry, left alone")
		case ours:
			var n registry.Node
			var ok bool
			if n, ok, buf, err = r.look(d, name, buf, mark); err != nil {
				return scanned{}, err
			}
			if ok {
				out.nodes = append(out.nodes, n)
				out.names[name] = n.ID
			}
		}
	}
	r.forget(names)
	return out, nil
}

// look gives the node in a file, if it holds one whose owner is alive, and has mark in its record. The buffer it gives
// back is to be used next.
func (r *reader) look(d *folder, name string, buf, mark []byte) (registry.Node, bool, []byte, error) {
	s, err := d.peek(name, registry.MaxRecord, buf)
	if err != nil {
		return registry.Node{}, false, buf, err
	}
	if cap(s.data) > cap(buf) {
		buf = s.data[:0]
	}
	switch s.state {
	case gone:
		r.vanished(name)
	case strange:
		r.say(name, "ignored: "+s.why)
	case alive, dead:
		if !bytes.Contains(s.data, mark) {
			break
		}
		rec, ok := r.parse(name, s.data)
		switch {
		case !ok: // what is no record is left for people to look at
		case s.state == alive:
			r.deaths.revoke(name)
			return rec.Node, true, buf, nil
		default:
			r.deaths.note(name, rec, true)
			r.reap(d, name)
		}
	}
	return registry.Node{}, false, buf, nil
}

// reap removes the file of a dead owner. If it cannot, it is there for the next one to remove: it does no harm.
func (r *reader) reap(d *folder, name string) {
	if err := d.reap(name); err != nil && err != errBusy {
		r.say(name, "the file of a process that is gone cannot be removed", "error", err)
	}
}

// parse reads a record, or remembers it.
func (r *reader) parse(name string, data []byte) (record, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p, ok := r.parsed[name]; ok && p.data == string(data) {
		return p.rec, !p.bad
	}
	rec, err := decode(name, data, r.space)
	r.parsed[name] = parsed{data: string(data), rec: rec, bad: err != nil}
	if err != nil {
		r.sayLocked(name, "no record of this registry, ignored", "error", err)
	}
	return rec, err == nil
}

// vanished drops what is remembered of a file that is not there.
func (r *reader) vanished(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p, ok := r.parsed[name]; ok && !p.bad {
		r.deaths.note(name, p.rec, false)
	}
	delete(r.parsed, name)
	delete(r.said, name)
}

// forget drops what is remembered of files that are not among names.
func (r *reader) forget(names []string) {
	r.mu.Lock()
	known := make([]string, 0, len(r.parsed)+len(r.said))
	known = slices.AppendSeq(known, maps.Keys(r.parsed))
	known = slices.AppendSeq(known, maps.Keys(r.said))
	r.mu.Unlock()
	if len(known) == 0 {
		return
	}
	there := make(map[string]struct{}, len(names))
	for _, name := range names {
		there[name] = struct{}{}
	}
	for _, name := range known {
		if _, ok := there[name]; !ok && name != "" {
			r.vanished(name)
		}
	}
}

// say logs something about a file, once.
func (r *reader) say(name, what string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sayLocked(name, what, args...)
}

func (r *reader) sayLocked(name, what string, args ...any) {
	if r.said[name] == what {
		return
	}
	r.said[name] = what
	r.log.Warn("registry: local: "+what, append([]any{"file", name}, args...)...)
}
