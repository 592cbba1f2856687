package registrytest

import (
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/cb02dfca/micro/pkg/registry"
)

// changes runs a test with watches by changes, where the backend offers them.
func (s *suite) changes(run func(*suite)) {
	if _, ok := s.one().(registry.ChangeWatcher); !ok {
		s.Skip("the backend is no registry.ChangeWatcher")
	}
	run(s)
}

// fold makes the sets that changes lead to, and checks that each is a change as registry.Change says.
func (s *suite) fold(changes iter.Seq2[registry.Change, error]) iter.Seq2[[]registry.Node, error] {
	return func(yield func([]registry.Node, error) bool) {
		set := map[string]registry.Node{}
		void := true // nothing is known to which a change could be applied
		for c, err := range changes {
			if err != nil {
				void = true
				if !yield(nil, err) {
					return
				}
				continue
			}
			s.check(c, void)
			if void = false; c.Reset {
				clear(set)
			}
			for _, id := range c.Gone {
				delete(set, id)
			}
			for _, n := range c.Put {
				set[n.ID] = n
			}
			nodes := slices.AppendSeq([]registry.Node{}, maps.Values(set))
			registry.Sort(nodes)
			if !yield(nodes, nil) {
				return
			}
		}
	}
}

func (s *suite) check(c registry.Change, void bool) {
	if void && !c.Reset {
		s.Errorf("a change follows nothing, and is no Reset: %d put, gone %v", len(c.Put), c.Gone)
	}
	if c.Reset && len(c.Gone) > 0 {
		s.Errorf("a Reset has gone %v", c.Gone)
	}
	sorted := slices.Clone(c.Put)
	registry.Sort(sorted)
	if !slices.Equal(ids(c.Put), ids(sorted)) {
		s.Errorf("put is not sorted: %v", ids(c.Put))
	}
	names := slices.Sorted(slices.Values(slices.Concat(ids(c.Put), c.Gone)))
	if len(slices.Compact(names)) < len(c.Put)+len(c.Gone) {
		s.Errorf("an id stands twice: put %v, gone %v", ids(c.Put), c.Gone)
	}
}

// watchRandom does what comes to mind with a few nodes, and looks at the watches now and then.
func (s *suite) watchRandom() {
	const seed1, seed2 = 20260117, 4
	random := rand.New(rand.NewPCG(seed1, seed2))
	r := s.one()
	here := map[string]registry.Node{}
	services := []string{"auth", "greeter", "shop"}
	watches := map[string]*watch{}
	for _, service := range append(services, "") {
		watches[service] = s.watch(r, service)
	}
	for range 12 {
		for range 1 + random.IntN(8) {
			i := random.IntN(12)
			n := node(services[i%len(services)], fmt.Sprintf("node-%02d", i))
			switch now, ok := here[n.ID]; {
			case ok && random.IntN(2) == 0:
				s.deregister(r, now)
				delete(here, n.ID)
			default:
				n.Version = fmt.Sprint(random.IntN(3))
				s.register(r, n, 0)
				here[n.ID] = n
			}
		}
		for service, w := range watches {
			var want []registry.Node
			for _, n := range here {
				if service == "" || service == n.Service {
					want = append(want, n)
				}
			}
			registry.Sort(want)
			w.expect(want...)
		}
	}
}
