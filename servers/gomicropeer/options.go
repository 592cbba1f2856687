// Package gomicropeer is what programs of several versions of go-micro have in common: their flags, the orders that they take, and the
// lines of JSON that they answer. A version adds its server, its client and its messages.
package gomicropeer

import (
	"flag"
	"fmt"
	"strings"
	"time"
)

// Options is what the flags say.
type Options struct {
	Registry      string        // "mdns", or "memory", of this process alone
	Protocol      string        // "mucp" or "grpc", which only v2 has
	Address       string        // of the service: where it listens, or where a client finds it without the registry
	BrokerAddress string        // where the HTTP broker listens; the version's own default if empty
	ContentType   string        // of requests and published messages
	Message       string        // "protobuf", "plain" or "raw": the Go type that requests and messages have
	Version       string        // of the service
	Topic         string        // the service's subscriber's, if it has one
	Queue         string        // the subscriber's
	Metadata      Pairs         // of a request or message, or of the service's node
	Timeout       time.Duration // of a request; the version's own default if 0
	Pace          time.Duration // between two messages that a stream of the service sends
	Linger        time.Duration // between publishing and the end of the program: the broker sends after Publish has returned
	Stay          bool          // do not end with standard input
}

func (o *Options) flags(name string) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ExitOnError)
	f.StringVar(&o.Registry, "registry", "mdns", "mdns or memory")
	f.StringVar(&o.Protocol, "protocol", "", "mucp or grpc (v2 has both; grpc is its default)")
	f.StringVar(&o.Address, "address", "", "where the service listens or is called")
	f.StringVar(&o.BrokerAddress, "broker-address", "", "where the broker listens")
	f.StringVar(&o.ContentType, "type", "application/json", "content type of requests and messages")
	f.StringVar(&o.Message, "message", "protobuf", "protobuf, plain or raw: the Go type of requests and messages")
	f.StringVar(&o.Version, "version", "latest", "version of the service")
	f.StringVar(&o.Topic, "topic", "", "topic of the service's subscriber")
	f.StringVar(&o.Queue, "queue", "", "queue of the subscriber")
	f.Var(&o.Metadata, "meta", "KEY=VALUE of a request, message or node; may be repeated")
	f.DurationVar(&o.Timeout, "timeout", 0, "of a request")
	f.DurationVar(&o.Pace, "pace", 20*time.Millisecond, "between two messages of a stream that the service sends")
	f.DurationVar(&o.Linger, "linger", time.Second, "between publishing and the end")
	f.BoolVar(&o.Stay, "stay", false, "end by a signal, not with standard input")
	return f
}

// Pairs are metadata by flags.
type Pairs map[string]string

// String is for package flag.
func (p *Pairs) String() string { return fmt.Sprint(map[string]string(*p)) }

// Set takes KEY=VALUE.
func (p *Pairs) Set(pair string) error {
	key, value, ok := strings.Cut(pair, "=")
	if !ok {
		return fmt.Errorf("%q is not KEY=VALUE", pair)
	}
	if *p == nil {
		*p = Pairs{}
	}
	(*p)[key] = value
	return nil
}
