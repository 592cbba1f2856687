package zookeeper

import "sync"

// points are the paths of which a connection is told when they change, once for each time that it asked. Several watches may
// want to know of one path; ZooKeeper is asked once for all, and what was asked for stays asked for when a watch ends.
type points struct {
	mu    sync.Mutex
	at    map[string]*point
	count int // changes that ZooKeeper told of
}

type point struct {
	armed bool // ZooKeeper will tell of the next change
	last  int  // the number of the last one, or of one before it was asked for
	subs  map[*news]struct{}
}

// news are the paths that may have changed since somebody looked.
type news struct {
	wake chan struct{} // of one element

	mu    sync.Mutex
	paths map[string]struct{}
}

func newNews(paths ...string) *news {
	n := &news{wake: make(chan struct{}, 1), paths: map[string]struct{}{}}
	for _, p := range paths {
		n.add(p)
	}
	return n
}

func (n *news) add(path string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.paths[path] = struct{}{}
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// take gives the paths, and forgets them.
func (n *news) take() map[string]struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	paths := n.paths
	n.paths = map[string]struct{}{}
	return paths
}

// follow lets n know of the changes of a path. armed says that what is read from here on need not be asked for with a watch;
// else last is to be given to arm when it was.
func (p *points) follow(path string, n *news) (armed bool, last int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := p.at[path]
	if at == nil {
		if p.at == nil {
			p.at = map[string]*point{}
		}
		at = &point{last: p.count, subs: map[*news]struct{}{}}
		p.at[path] = at
	}
	at.subs[n] = struct{}{}
	return at.armed, at.last
}

// arm notes that a watch was set, unless it told of a change already.
func (p *points) arm(path string, last int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if at := p.at[path]; at != nil && at.last == last {
		at.armed = true
	}
}

// leave ends what follow began.
func (p *points) leave(path string, n *news) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if at := p.at[path]; at != nil {
		delete(at.subs, n)
		p.prune(path, at)
	}
}

// fire takes in that a path changed.
func (p *points) fire(path string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count++
	at := p.at[path]
	if at == nil {
		return
	}
	at.armed, at.last = false, p.count
	for n := range at.subs {
		n.add(path)
	}
	p.prune(path, at)
}

// prune forgets a path of which nobody wants to know and nothing will be told. It is called with the lock held.
func (p *points) prune(path string, at *point) {
	if len(at.subs) == 0 && !at.armed {
		delete(p.at, path)
	}
}
