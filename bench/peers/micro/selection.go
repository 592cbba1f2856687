package main

import (
	"context"
	"strconv"

	"github.com/cb02dfca/micro/bench/internal/cell"
	"github.com/cb02dfca/micro/bench/internal/worker"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/memory"
	"github.com/cb02dfca/micro/pkg/selector"
)

// selection is what a selector does, by itself, over the cell's nodes. Nothing is called: the server does nothing.
type selection struct{ change bool }

func (selection) Serve(c cell.Cell, _ *worker.Counter) (worker.Place, error) {
	if c.Kind != cell.Call || c.Nodes == 0 || c.Callers > 1 {
		return worker.Place{}, worker.ErrUnfit
	}
	return worker.Place{}, nil
}

func (p selection) Dial(c cell.Cell, _ worker.Place) ([]worker.Op, error) {
	r, ctx := memory.New(), context.Background()
	for i := range c.Nodes {
		if err := r.Register(ctx, numbered(i), 0); err != nil {
			return nil, err
		}
	}
	s, err := selector.New(r)
	if err != nil {
		return nil, err
	}
	choose := func() error {
		_, done, err := s.Select(ctx, selector.Query{Service: service})
		if err == nil {
			done(nil)
		}
		return err
	}
	if err := choose(); err != nil { // the selector watches from now on
		return nil, err
	}
	if !p.change {
		return []worker.Op{choose}, nil
	}
	return []worker.Op{changing(ctx, r, c.Nodes)}, nil
}

func numbered(i int) registry.Node {
	return registry.Node{
		ID: service + "-" + strconv.Itoa(i), Service: service, Version: "1.0.0", Address: "127.0.0.1:" + strconv.Itoa(1024+i),
		Metadata: map[string]string{registry.MetaProtocol: "mucp", registry.MetaTransport: "http", "zone": "a"},
	}
}

// changing gives an operation that changes a node of n, and waits until a watch beside the selector's has been told. Both watch
// by changes: a watch that yields whole sets costs what they hold.
func changing(ctx context.Context, r *memory.Registry, n int) worker.Op {
	told := make(chan error, 1)
	go func() {
		for _, err := range registry.WatchChanges(ctx, r, service) {
			told <- err
		}
	}()
	<-told // the first set
	i := 0
	return func() error {
		i++
		node := numbered(i % n)
		node.Metadata["change"] = strconv.Itoa(i)
		if err := r.Register(ctx, node, 0); err != nil {
			return err
		}
		return <-told
	}
}
