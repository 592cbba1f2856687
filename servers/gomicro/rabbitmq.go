package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"go-micro.dev/v5/broker"
	"go-micro.dev/v5/broker/rabbitmq"
	"go-micro.dev/v5/registry"
)

// openBroker gives the HTTP broker by the registry for no URL, or go-micro's broker for rabbitmq://ADDRESS?exchange=EXCHANGE&durable=true.
func openBroker(args []string, r registry.Registry) (broker.Broker, error) {
	if len(args) == 0 {
		return broker.NewHttpBroker(broker.Registry(r)), nil
	}
	u, err := url.Parse(args[0])
	if err != nil {
		return nil, err
	}
	if u.Scheme != "rabbitmq" {
		return nil, fmt.Errorf("%s: no such broker", u)
	}
	options := []broker.Option{
		broker.Addrs("amqp://guest:guest@" + u.Host), rabbitmq.ExchangeName(u.Query().Get("exchange")), rabbitmq.ConfirmPublish(),
	}
	if u.Query().Get("durable") == "true" {
		options = append(options, rabbitmq.DurableExchange())
	}
	return rabbitmq.NewBroker(options...), nil
}

// message is a message as a handler has it.
type message struct {
	Topic  string            `json:"topic"`
	Header map[string]string `json:"header"`
	Body   string            `json:"body"`
}

// runRabbitMQ is a broker alone. Its orders are "subscribe TOPIC [QUEUE]", with a durable queue if it has a name, whose messages are events,
// and "publish TOPIC MESSAGE".
//
// usage: gomicro rabbitmq URL
func runRabbitMQ(args []string) error {
	b, err := openBroker(args, nil)
	if err != nil {
		return err
	}
	if err := b.Connect(); err != nil {
		return err
	}
	orders(func(verb, rest string) {
		topic, rest, _ := strings.Cut(rest, " ")
		switch verb {
		case "subscribe":
			var o []broker.SubscribeOption
			if rest != "" {
				o = append(o, broker.Queue(rest), rabbitmq.DurableQueue())
			}
			_, err := b.Subscribe(topic, func(e broker.Event) error {
				say("event ", message{e.Topic(), e.Message().Header, string(e.Message().Body)}, nil)
				return nil
			}, o...)
			say("", "subscribed", err)
		case "publish":
			var m message
			err := json.Unmarshal([]byte(rest), &m)
			if err == nil {
				err = b.Publish(topic, &broker.Message{Header: m.Header, Body: []byte(m.Body)})
			}
			say("", "published", err)
		}
	})
	return b.Disconnect()
}
