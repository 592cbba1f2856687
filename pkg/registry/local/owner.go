package local

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
)

// reapTimeout is how long Register waits for a folder that others are changing.
const reapTimeout = time.Second

// held is a node registered here. Its fields are under the registry's lock.
type held struct {
	id       string
	service  string
	name     string    // of its file
	data     []byte    // the file's content
	file     *os.File  // open, and locked; nil before it was written
	expires  time.Time // zero: never
	troubled bool      // it was logged that the file cannot be put back
}

// Register announces n in a file of its own, renews it, or changes it, as registry.Registrar says. A renewal that
// changes nothing writes nothing, but puts back a file that somebody deleted. Endpoints are left out of a record that
// would pass registry.MaxRecord with them. The ttl is watched over by this process, and so is not needed to notice
// its end.
func (r *Registry) Register(ctx context.Context, n registry.Node, ttl time.Duration) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("registry: local: register %q: %w", n.ID, err)
	}
	if err := registry.Validate(n); err != nil {
		return err
	}
	if ttl < 0 {
		return fmt.Errorf("%w: a ttl of %v", registry.ErrInvalid, ttl)
	}
	data, err := encode(n, r.space, os.Getpid())
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return registry.ErrClosed
	}
	h := r.held[n.ID]
	if h == nil {
		h = &held{id: n.ID, name: fileName(n.ID, r.space)}
	}
	if err := r.write(ctx, h, data); err != nil {
		if errors.Is(err, registry.ErrConflict) { // it was ours, perhaps, and was deleted, and is another's now
			r.withdraw(h)
		}
		return err
	}
	r.held[n.ID] = h
	r.read.deaths.revoke(h.name)
	h.service, h.expires = n.Service, time.Time{}
	if ttl > 0 {
		h.expires = time.Now().Add(ttl)
	}
	r.keepUntil(h.expires)
	return nil
}

// Deregister withdraws n. A node of another owner is not withdrawn: registry.ErrConflict.
func (r *Registry) Deregister(ctx context.Context, n registry.Node) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("registry: local: deregister %q: %w", n.ID, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return registry.ErrClosed
	}
	if h := r.held[n.ID]; h != nil {
		if h.service == n.Service {
			r.withdraw(h)
		}
		return nil
	}
	d, err := openFolder(r.dir)
	if isMissing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.close()
	rec, found, err := r.owner(d, fileName(n.ID, r.space))
	if err == nil && found && rec.Node.Service == n.Service {
		return taken(n.ID, rec)
	}
	return err
}

// The rest of the file is called with r.mu held.

// write makes h's file hold data, and be there.
func (r *Registry) write(ctx context.Context, h *held, data []byte) error {
	d, err := r.dir.openOrMake()
	if err != nil {
		return err
	}
	defer d.close()
	stands := h.file != nil && d.holds(h.name, h.file)
	if stands && bytes.Equal(h.data, data) {
		return nil
	}
	temp := tempPrefix + h.name + "." + strings.ToLower(rand.Text()[:10])
	file, err := d.create(temp, data)
	if err != nil {
		return err
	}
	if stands {
		err = d.replace(temp, h.name)
	} else {
		err = r.claim(ctx, d, temp, h)
	}
	if err != nil {
		d.discard(temp, file)
		return err
	}
	if h.file != nil {
		_ = h.file.Close()
	}
	h.file, h.data = file, data
	return nil
}

// claim gives a created file its name. What a dead owner left under the name is removed; a live owner keeps it.
func (r *Registry) claim(ctx context.Context, d *folder, temp string, h *held) error {
	for deadline := time.Now().Add(reapTimeout); ; {
		err := d.publish(temp, h.name)
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		rec, found, err := r.owner(d, h.name)
		switch {
		case err != nil:
			return err
		case found:
			return taken(h.id, rec)
		}
		if err = d.reap(h.name); err != nil && err != errBusy {
			return err
		}
		if time.Now().After(deadline) {
			return unavailable("%s: a file of a process that is gone stands in the way: remove it", d.pathOf(h.name))
		}
		if err == errBusy {
			select {
			case <-ctx.Done():
				return fmt.Errorf("registry: local: register: %w", ctx.Err())
			case <-time.After(time.Millisecond):
			}
		}
	}
}

// owner gives the record of the live owner of a file, if it has one.
func (r *Registry) owner(d *folder, name string) (record, bool, error) {
	s, err := d.peek(name, registry.MaxRecord, nil)
	if err != nil {
		return record{}, false, err
	}
	switch s.state {
	case strange:
		return record{}, false, unavailable("%s stands in the way (%s): remove it", d.pathOf(name), s.why)
	case alive:
		rec, _ := decode(name, s.data, r.space)
		return rec, true, nil
	}
	return record{}, false, nil
}

func taken(id string, rec record) error {
	if rec.PID == 0 { // the file is no record
		return fmt.Errorf("%w: %q is held by another process", registry.ErrConflict, id)
	}
	return fmt.Errorf("%w: %q is held by process %d, for service %q", registry.ErrConflict, id, rec.PID, rec.Node.Service)
}

// withdraw removes a node's file, and lets go of it. Even where the file cannot be removed its owner is gone then.
func (r *Registry) withdraw(h *held) {
	delete(r.held, h.id)
	if h.file == nil {
		return
	}
	d, err := openFolder(r.dir)
	if err != nil {
		_ = h.file.Close()
		return
	}
	defer d.close()
	d.withdraw(h.name, h.file)
}
