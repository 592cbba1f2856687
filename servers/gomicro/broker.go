package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"go-micro.dev/v5/broker"
	brokernats "go-micro.dev/v5/broker/nats"
	"go-micro.dev/v5/client"
	"go-micro.dev/v5/metadata"
	"go-micro.dev/v5/registry"
	"go-micro.dev/v5/server"
)

// Note is what is published.
type Note struct {
	Text string `json:"text"`
}

// got is a message as a handler has it.
type got struct {
	Text   string            `json:"text"`
	Header map[string]string `json:"header"`
}

// settle waits until the server has the subscriptions of b's connection: it takes them in their order.
func settle(b broker.Broker) error {
	topic := fmt.Sprint("gomicro.settle.", os.Getpid(), ".", time.Now().UnixNano())
	there := make(chan struct{}, 1)
	sub, err := b.Subscribe(topic, func(broker.Event) error { there <- struct{}{}; return nil })
	if err != nil {
		return err
	}
	if err := b.Publish(topic, &broker.Message{}); err != nil {
		return err
	}
	<-there
	return sub.Unsubscribe()
}

// runBroker is go-micro's own broker on NATS, below its client and its server. What the server's subscriber to TOPIC gets is a line that
// begins with "event ", what one of the broker itself gets, "raw ". It takes the orders "publish TOPIC TEXT", by the client, and
// "raw TOPIC TEXT", by the broker.
//
// usage: gomicro broker ADDRESS TOPIC QUEUE
func runBroker(args []string) error {
	address, topic, queue := args[0], args[1], args[2]
	b := brokernats.NewNatsBroker(broker.Addrs(address))
	if err := b.Connect(); err != nil {
		return err
	}
	s := server.NewServer(server.Name("reader"), server.Broker(b), server.Registry(registry.NewMemoryRegistry()), server.Address("127.0.0.1:0"))
	if err := s.Init(); err != nil {
		return err
	}
	err := s.Subscribe(s.NewSubscriber(topic, func(ctx context.Context, n *Note) error {
		header, _ := metadata.FromContext(ctx)
		say("event ", got{n.Text, header}, nil)
		return nil
	}, server.SubscriberQueue(queue)))
	if err != nil {
		return err
	}
	if err := s.Start(); err != nil {
		return err
	}
	_, err = b.Subscribe(topic, func(e broker.Event) error {
		say("raw ", got{string(e.Message().Body), e.Message().Header}, nil)
		return nil
	})
	if err != nil {
		return err
	}
	if err := settle(b); err != nil {
		return err
	}
	c := client.NewClient(client.Broker(b), client.Registry(registry.NewMemoryRegistry()), client.ContentType("application/json"))
	orders(func(verb, rest string) {
		topic, text, _ := strings.Cut(rest, " ")
		switch verb {
		case "publish":
			ctx := metadata.NewContext(context.Background(), metadata.Metadata{"Trace": "theirs"})
			say("", "published", c.Publish(ctx, c.NewMessage(topic, &Note{text})))
		case "raw":
			say("", "published", b.Publish(topic, &broker.Message{Header: map[string]string{"Trace": "raw"}, Body: []byte(text)}))
		}
	})
	return nil
}
