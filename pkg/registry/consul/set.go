package consul

import (
	"context"
	"slices"
	"sync"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/internal/record"
)

// parallel is how many requests are made at one time for many services or nodes.
const parallel = 8

// names gives the services that may have nodes.
func (r *Registry) names(ctx context.Context, q query) ([]string, *answer, error) {
	var services map[string][]string
	a, err := r.catalog(ctx, "/v1/catalog/services", q, &services)
	if err != nil {
		return nil, nil, err
	}
	if len(services) == 0 && r.o.Token == "" && a.denies() { // not even Consul's own
		return nil, nil, r.hidden()
	}
	var names []string
	for name, tags := range services {
		if registry.ValidName(name) && hasVersion(tags) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, a, nil
}

// criticals asks for the checks that are critical, of which it gives nothing but that there is another answer.
func (r *Registry) criticals(ctx context.Context, q query) ([]string, *answer, error) {
	var checks []struct{}
	a, err := r.catalog(ctx, "/v1/health/state/critical", q, &checks)
	return nil, a, err
}

// set reads the nodes of one service, or of several, again and again. It is not for concurrent use.
type set struct {
	r       *Registry
	decoder decoder
	table   *record.Table // of the last reading
}

func newSet(r *Registry) *set { return &set{r: r} }

// read reads one service.
func (s *set) read(ctx context.Context, service string, q query) (*answer, error) {
	var entries []entry
	a, err := s.r.catalog(ctx, "/v1/health/service/"+service, q, &entries)
	switch {
	case err != nil:
		return nil, err
	case len(entries) > 0:
	case a.filtered():
		return nil, s.r.hidden()
	case s.r.o.Token == "" && a.denies():
		if _, _, err := s.r.names(ctx, query{}); err != nil {
			return nil, err
		}
	}
	s.begin()
	s.done(s.take(service, entries))
	return a, nil
}

// readAll reads several services.
func (s *set) readAll(ctx context.Context, services []string, q query) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	found := make([][]entry, len(services))
	var reading sync.WaitGroup
	free := make(chan struct{}, parallel)
	for i, service := range services {
		select {
		case free <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		reading.Go(func() {
			defer func() { <-free }()
			if _, err := s.r.catalog(ctx, "/v1/health/service/"+service, q, &found[i]); err != nil {
				cancel(err)
			}
		})
	}
	reading.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	s.begin()
	var skipped []error
	for i, service := range services {
		skipped = append(skipped, s.take(service, found[i])...)
	}
	s.done(skipped)
	return nil
}

func (s *set) begin() {
	s.decoder.turn()
	s.table = record.NewTable()
}

// take puts what passes of a service into the table, and gives why records were left out.
func (s *set) take(service string, entries []entry) (skipped []error) {
	for i := range entries {
		e := &entries[i]
		if e.Service.Service != service || !e.passes() { // Consul's names are the same in upper and lower case
			continue
		}
		switch n, ok, err := s.decoder.node(e); {
		case err != nil:
			skipped = append(skipped, err)
		case ok:
			s.table.Put(service+"/"+e.Node.Node+"/"+n.ID, n)
		}
	}
	return skipped
}

func (s *set) done(skipped []error) {
	if len(skipped) > 0 {
		s.r.o.Logger.Warn("consul holds records that are no nodes", "consul", s.r.host, "records", len(skipped), "first", skipped[0])
	}
}
