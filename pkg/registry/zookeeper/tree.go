package zookeeper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/go-zookeeper/zk"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/internal/record"
)

// tree is what stands at ZooKeeper, as far as it was read: the nodes of a service or of all, with the folders that they are in. It is for
// one goroutine.
type tree struct {
	r     *Registry
	root  string                         // the service's folder, or the prefix
	all   bool                           // services stand below the root, and nodes below them
	news  *news                          // is told of what may have changed in what was read; nil: nobody is
	on    *epoch                         // what it is read over, where news are wanted
	dirs  map[string]map[string]struct{} // the names in each folder that was read
	table *record.Table                  // the nodes, by path
	ids   []string                       // nodes that may be others than before
}

func newTree(r *Registry, service string, n *news) *tree {
	t := &tree{r: r, root: r.o.Prefix, all: service == "", news: n, dirs: map[string]map[string]struct{}{}, table: record.NewTable()}
	if !t.all {
		t.root = servicePath(r.o.Prefix, service)
	}
	return t
}

// content is what a path has.
type content struct {
	names []string // of a folder
	data  []byte   // of a node
	gone  bool
	odd   error // it may not be read
}

// look reads what may have changed at some paths, and what that leads to.
func (t *tree) look(ctx context.Context, dirty map[string]struct{}) error {
	if _, ok := dirty[t.root]; t.all && ok {
		if err := t.lookFolders(ctx, []string{t.root}, dirty); err != nil {
			return err
		}
	}
	var services, nodes []string
	for p := range dirty {
		if p == t.root && !t.all || t.all && path.Dir(p) == t.root && t.has(p) {
			services = append(services, p)
		}
	}
	if err := t.lookFolders(ctx, services, dirty); err != nil {
		return err
	}
	for p := range dirty {
		if t.isNode(p) && t.has(p) {
			nodes = append(nodes, p)
		}
	}
	slices.Sort(nodes)
	return t.lookNodes(ctx, nodes)
}

// has reports whether a path's name stands in its folder.
func (t *tree) has(p string) bool {
	_, ok := t.dirs[path.Dir(p)][path.Base(p)]
	return ok
}

// isNode reports whether a path is one of a service's folder.
func (t *tree) isNode(p string) bool {
	if t.all {
		p = path.Dir(p)
	}
	return path.Dir(p) == t.root
}

// lookFolders reads folders, and adds to dirty what is new in them.
func (t *tree) lookFolders(ctx context.Context, folders []string, dirty map[string]struct{}) error {
	contents := make([]content, len(folders))
	err := each(len(folders), func(i int) (err error) {
		contents[i], err = t.folder(ctx, folders[i])
		return err
	})
	if err != nil {
		return err
	}
	var odd []error
	for i, dir := range folders {
		if c := contents[i]; c.odd != nil {
			odd = append(odd, fmt.Errorf("%s: %w", dir, c.odd))
		}
		t.takeFolder(dir, contents[i], dirty)
	}
	t.tell(odd)
	return nil
}

// tell tells of what is left out.
func (t *tree) tell(odd []error) {
	if len(odd) > 0 {
		t.r.o.Logger.Warn("ZooKeeper holds records that are left out", "zookeeper", t.r.host, "records", len(odd), "first", odd[0])
	}
}

// takeFolder takes in a folder.
func (t *tree) takeFolder(dir string, c content, dirty map[string]struct{}) {
	old, names := t.dirs[dir], make(map[string]struct{}, len(c.names))
	for _, name := range c.names {
		names[name] = struct{}{}
		if _, ok := old[name]; !ok {
			dirty[path.Join(dir, name)] = struct{}{}
		}
	}
	for name := range old {
		if _, ok := names[name]; !ok {
			t.forget(path.Join(dir, name))
		}
	}
	t.dirs[dir] = names
	if c.gone && dir != t.root { // so that it is read again where the root has it again
		t.forget(dir)
	}
}

// forget drops what stands at a path and below.
func (t *tree) forget(p string) {
	for name := range t.dirs[p] {
		t.forget(path.Join(p, name))
	}
	delete(t.dirs, p)
	delete(t.dirs[path.Dir(p)], path.Base(p))
	t.drop(p)
	if t.on != nil {
		t.on.points.leave(p, t.news)
	}
}

// drop takes the node at a path away.
func (t *tree) drop(p string) {
	if id := t.table.Drop(p); id != "" {
		t.ids = append(t.ids, id)
	}
}

// lookNodes reads the nodes at some paths.
func (t *tree) lookNodes(ctx context.Context, paths []string) error {
	contents := make([]content, len(paths))
	err := each(len(paths), func(i int) (err error) {
		contents[i], err = t.node(ctx, paths[i])
		return err
	})
	if err != nil {
		return err
	}
	var odd []error
	for i, p := range paths {
		c := contents[i]
		if c.gone {
			t.forget(p)
			continue
		}
		t.drop(p)
		n, err := decode(t.r.o.Prefix, p, c.data)
		if err = cmp.Or(c.odd, err); err != nil {
			odd = append(odd, fmt.Errorf("%s: %w", p, err))
			continue
		}
		t.table.Put(p, n)
		t.ids = append(t.ids, n.ID)
	}
	t.tell(odd)
	return nil
}

// changes gives what is new since it was asked last.
func (t *tree) changes() (put []registry.Node, gone []string) {
	put, gone = t.table.Changes(t.ids)
	t.ids = nil
	return put, gone
}

// folder reads the names in a folder.
func (t *tree) folder(ctx context.Context, dir string) (content, error) {
	return t.read(ctx, dir, func(e *epoch, watch bool) (c content, err error) {
		for {
			if watch {
				c.names, _, _, err = e.conn.ChildrenW(dir)
			} else {
				c.names, _, err = e.conn.Children(dir)
			}
			if !errors.Is(err, zk.ErrNoNode) {
				return c, err
			}
			if !watch || dir != t.root {
				return content{gone: true}, zk.ErrNoNode
			}
			if there, _, _, err := e.conn.ExistsW(dir); !there || err != nil {
				return content{gone: true}, err
			}
		}
	})
}

// node reads what stands at a path.
func (t *tree) node(ctx context.Context, p string) (content, error) {
	return t.read(ctx, p, func(e *epoch, watch bool) (c content, err error) {
		if watch {
			c.data, _, _, err = e.conn.GetW(p)
		} else {
			c.data, _, err = e.conn.Get(p)
		}
		return c, err
	})
}

// read reads a path, and sees to it that the news are told of its next change. Where nothing stands there is no error, and
// no watch but the one that the root has.
func (t *tree) read(ctx context.Context, p string, request func(e *epoch, watch bool) (content, error)) (content, error) {
	var c content
	var err error
	if t.on == nil {
		c, err = ask(ctx, t.r.reader, func(e *epoch) (content, error) { return request(e, false) })
	} else {
		armed, last := t.on.points.follow(p, t.news)
		c, err = askOn(ctx, t.r.reader, t.on, func(e *epoch) (content, error) {
			c, err := request(e, !armed)
			if err == nil && !armed {
				e.points.arm(p, last)
			}
			return c, err
		})
	}
	switch {
	case errors.Is(err, zk.ErrNoNode):
		return content{gone: true}, nil
	case errors.Is(err, zk.ErrNoAuth) && p != t.root: // one of many: the others are found all the same
		return content{odd: err}, nil
	}
	return c, err
}

// leave ends what lets the news be told.
func (t *tree) leave() {
	t.on.points.leave(t.root, t.news)
	for dir, names := range t.dirs {
		for name := range names {
			t.on.points.leave(path.Join(dir, name), t.news)
		}
	}
}
