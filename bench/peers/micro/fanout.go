package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/cb02dfca/micro/bench/internal/cell"
	"github.com/cb02dfca/micro/bench/internal/worker"
	"github.com/cb02dfca/micro/pkg/broker"
	"github.com/cb02dfca/micro/pkg/micro"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/memory"
)

const topic = "echo/events"

// subscribe has a service with c.Conns subscriptions; a publisher has a connection to each. The handlers count, and that is
// all.
func subscribe(c cell.Cell, delivered *worker.Counter, opts ...broker.SubscribeOption) (worker.Place, error) {
	r := memory.New()
	register := func(svc *micro.Service) error {
		for i := range c.Conns {
			count := delivered.Shard(i)
			if err := svc.Subscribe(topic, func(context.Context, *broker.Message) error {
				count.Add(1)
				return nil
			}, opts...); err != nil {
				return err
			}
		}
		return nil
	}
	if _, err := run(register, micro.Registry(r)); err != nil {
		return worker.Place{}, err
	}
	list, err := r.Get(context.Background(), registry.BrokerService)
	if err != nil {
		return worker.Place{}, err
	}
	extra, err := json.Marshal(list)
	return worker.Place{Extra: extra}, err
}

// publish has c.Callers publishers in a service. An operation publishes a batch of messages and waits until each subscriber's handler
// has returned for each of them.
func publish(c cell.Cell, at worker.Place) ([]worker.Op, error) {
	r, err := listing(at, 0)
	if err != nil {
		return nil, err
	}
	svc, err := run(func(*micro.Service) error { return nil }, micro.Registry(r))
	if err != nil {
		return nil, err
	}
	b := svc.Broker()
	var ops []worker.Op
	for range c.Callers {
		batch := make([]*broker.Message, worker.Batch(c))
		for i := range batch {
			batch[i] = &broker.Message{Topic: topic, Body: worker.Payload(c.Payload)}
		}
		ops = append(ops, func() error {
			report, err := b.Publish(context.Background(), batch...)
			if err == nil {
				err = report.Err()
			}
			if want := len(batch) * c.Conns; err == nil && report.Delivered() != want {
				err = fmt.Errorf("%d of %d deliveries were acknowledged", report.Delivered(), want)
			}
			return err
		})
	}
	return ops, nil
}
