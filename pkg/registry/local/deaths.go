package local

import (
	"sync"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
)

const (
	rememberDeaths = 2 * time.Minute // longer than a network's registry keeps a node that says nothing
	maxDeaths      = 4096
)

// deaths remembers the nodes whose files went, by file name, and whether their owners did. Its methods may be called
// concurrently.
type deaths struct {
	mu   sync.Mutex
	lost map[string]loss
}

// loss is a file that went.
type loss struct {
	rec  record
	at   time.Time
	sure bool // its owner let go of it: it ended, or has withdrawn the node
}

// note takes in that the file of a record is gone, or that its lock is free, which is sure.
func (d *deaths) note(name string, rec record, sure bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if old, ok := d.lost[name]; ok {
		old.sure = old.sure || sure
		d.lost[name] = old
		return
	}
	now := time.Now()
	if len(d.lost) >= maxDeaths {
		for name, l := range d.lost {
			if now.Sub(l.at) > rememberDeaths {
				delete(d.lost, name)
			}
		}
	}
	if len(d.lost) < maxDeaths {
		if d.lost == nil {
			d.lost = map[string]loss{}
		}
		d.lost[name] = loss{rec: rec, at: now, sure: sure}
	}
}

// confirm takes in that the owner of a file that is gone has closed it.
func (d *deaths) confirm(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l, ok := d.lost[name]; ok {
		l.sure = true
		d.lost[name] = l
	}
}

// revoke takes in that the file is there, and held.
func (d *deaths) revoke(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.lost, name)
}

// of gives what is known of a file that went.
func (d *deaths) of(name string) (loss, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l, ok := d.lost[name]
	return l, ok && time.Since(l.at) <= rememberDeaths
}

// Died gives the node with that id as it last was, if its owner ended or has withdrawn it within the last two minutes,
// and nobody has registered the id since. It is false where merely the file or the folder was removed and the owner may
// run on. It knows of nodes that this registry showed, or would have shown: to hear of a death soon, watch. It does not
// block.
func (r *Registry) Died(id string) (registry.Node, bool) {
	l, ok := r.read.deaths.of(fileName(id, r.space))
	if !ok || !l.sure && !ended(l.rec) {
		return registry.Node{}, false
	}
	return l.rec.Node, true
}

// ended reports whether the process that wrote a record is no more: where no events tell who closed a file, somebody
// else may have removed it after its owner's death. Process numbers mean the same in one namespace of them only.
func ended(rec record) bool {
	return rec.PID > 0 && rec.Processes == processSpace() && !running(rec.PID)
}
