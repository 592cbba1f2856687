package main

import (
	"context"

	"github.com/cb02dfca/micro/servers/gomicropeer"
	"go-micro.dev/v4"
	"go-micro.dev/v4/broker"
	"go-micro.dev/v4/client"
	"go-micro.dev/v4/metadata"
)

// caller is a client as a program has it that is no service itself.
type caller struct {
	micro.Service
	o *gomicropeer.Options
}

func newClient(o *gomicropeer.Options) (gomicropeer.Client, error) {
	options, err := parts(o)
	if err != nil {
		return nil, err
	}
	c := caller{micro.NewService(append(options, micro.Name("caller"))...), o}
	var settings []client.Option
	if o.Timeout != 0 {
		settings = append(settings, client.RequestTimeout(o.Timeout))
	}
	if err := c.Client().Init(settings...); err != nil {
		return nil, err
	}
	return c, c.Options().Broker.Connect()
}

func (c caller) context() context.Context {
	md := metadata.Metadata{}
	for key, value := range c.o.Metadata {
		md[key] = value
	}
	return metadata.NewContext(context.Background(), md)
}

func (c caller) options() []client.CallOption {
	if c.o.Address == "" {
		return nil
	}
	return []client.CallOption{client.WithAddress(c.o.Address)}
}

// Call calls.
func (c caller) Call(service, endpoint string, req, rsp any) error {
	return c.Client().Call(c.context(), c.Client().NewRequest(service, endpoint, req, client.WithContentType(c.o.ContentType)), rsp, c.options()...)
}

// Stream opens a stream.
func (c caller) Stream(service, endpoint string, open any) (gomicropeer.Stream, error) {
	return c.Client().Stream(c.context(), c.Client().NewRequest(service, endpoint, open, client.StreamingRequest(), client.WithContentType(c.o.ContentType)), c.options()...)
}

// Publish publishes by the client.
func (c caller) Publish(topic string, message any) error {
	return c.Client().Publish(c.context(), c.Client().NewMessage(topic, message, client.WithMessageContentType(c.o.ContentType)))
}

// Raw publishes by the broker.
func (c caller) Raw(topic string, header map[string]string, body []byte) error {
	return c.Options().Broker.Publish(topic, &broker.Message{Header: header, Body: body})
}

// Subscribe subscribes by the broker.
func (c caller) Subscribe(topic, queue string, heard func(string, map[string]string, []byte)) error {
	var options []broker.SubscribeOption
	if queue != "" {
		options = append(options, broker.Queue(queue))
	}
	_, err := c.Options().Broker.Subscribe(topic, func(e broker.Event) error {
		heard(e.Topic(), e.Message().Header, e.Message().Body)
		return nil
	}, options...)
	return err
}

// List lists.
func (c caller) List() (any, error) {
	services, err := c.Options().Registry.ListServices()
	names := []string{}
	for _, s := range services {
		names = append(names, s.Name)
	}
	return names, err
}

// Get gives a service's versions.
func (c caller) Get(name string) (any, error) { return c.Options().Registry.GetService(name) }

// Watch tells of a service's changes, of all services' for no name.
func (c caller) Watch(name string, seen func(any)) error {
	w, err := c.Options().Registry.Watch()
	if err != nil {
		return err
	}
	go func() {
		for {
			e, err := w.Next()
			if err != nil {
				return
			}
			if e.Service.Name == name {
				seen(e)
			}
		}
	}()
	return nil
}
