package commands

import (
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

// defaultTimeout bounds a command that asks something, discovery and all.
const defaultTimeout = 5 * time.Second

// The variables of the environment that stand for global flags. A flag wins.
const (
	envRegistry        = "MICRO_REGISTRY"
	envRegistryAddress = "MICRO_REGISTRY_ADDRESS"
	envRegistryToken   = "MICRO_REGISTRY_TOKEN" // of a registry server; no flag has it
	envBroker          = "MICRO_BROKER"
	envBrokerAddress   = "MICRO_BROKER_ADDRESS"
	envTransport       = "MICRO_TRANSPORT"
	envTimeout         = "MICRO_CLIENT_REQUEST_TIMEOUT"
	envOutput          = "MICRO_OUTPUT"
)

// globalFlags are the root's flags, which every command takes at any place of the line.
func globalFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "registry", Usage: "where services are found: default, local, mdns, gossip, or the `URL` of a server: http, etcd, consul, zookeeper, nats, dns [$MICRO_REGISTRY]"},
		&cli.StringFlag{Name: "registry-address", Usage: "the registry's `ADDRESS`, as in go-micro [$MICRO_REGISTRY_ADDRESS]"},
		&cli.StringFlag{Name: "broker", Usage: "how messages are published: http, or the `URL` of a server: nats, rabbitmq, nsq [$MICRO_BROKER]"},
		&cli.StringFlag{Name: "broker-address", Usage: "the broker's `ADDRESS` [$MICRO_BROKER_ADDRESS]", Hidden: true},
		&cli.StringFlag{Name: "transport", Usage: "how services are called: http, ws, or the `URL` of a server: nats, rabbitmq [$MICRO_TRANSPORT]"},
		&cli.DurationFlag{Name: "timeout", Aliases: []string{"client-request-timeout"}, Usage: "the time for the whole command, as `D` [$MICRO_CLIENT_REQUEST_TIMEOUT] (default 5s)"},
		&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "the answer's `FORM`: table, wide, json, jsonl, yaml, name [$MICRO_OUTPUT]"},
		&cli.StringFlag{Name: "query", Aliases: []string{"q"}, Usage: "the `JQ` expression to apply to the JSON form; strings print raw"},
		&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "tell what is done, on standard error"},
		&cli.BoolFlag{Name: "quiet", Usage: "print the answer only: no notes, no hints"},
		&cli.StringFlag{Name: "color", Usage: "colour: auto, always or never, as `WHEN` [$NO_COLOR $CLICOLOR_FORCE]"},
		&cli.BoolFlag{Name: "no-color", Usage: "the same as --color never", Hidden: true},
		&cli.BoolFlag{Name: "help", Aliases: []string{"h"}, Usage: "show help for the command"},
	}
}

// settings are the global flags, with what the environment says where a flag is not given.
type settings struct {
	registry, broker, transport string // URLs; empty is the default
	timeout                     time.Duration
	timeoutGiven                bool
	output                      string // empty is not given
	outputGiven                 bool   // by the flag
	query                       string
	verbose, quiet, help        bool
	color                       string // auto, always, never
	colorGiven                  bool
}

// readSettings takes the flags from the line itself, so that a line with a mistake still has its form of output.
func readSettings(d *Deps, l *line) (settings, error) {
	pick := func(flag, variable string) string { return or(l.value(flag), d.env(variable)) }
	s := settings{
		registry:     withAddress(pick("registry", envRegistry), pick("registry-address", envRegistryAddress)),
		broker:       withAddress(pick("broker", envBroker), pick("broker-address", envBrokerAddress)),
		transport:    pick("transport", envTransport),
		timeout:      defaultTimeout,
		output:       pick("output", envOutput),
		outputGiven:  l.value("output") != "",
		query:        l.value("query"),
		verbose:      l.isSet("verbose"),
		quiet:        l.isSet("quiet"),
		help:         l.isSet("help"),
		color:        or(l.value("color"), "auto"),
		colorGiven:   l.value("color") != "",
		timeoutGiven: pick("timeout", envTimeout) != "",
	}
	if l.isSet("no-color") {
		s.color, s.colorGiven = "never", true
	}
	if !slices.Contains([]string{"auto", "always", "never"}, s.color) {
		return s, usage("flag --color: %q is not one of auto, always, never", s.color)
	}
	if v := pick("timeout", envTimeout); v != "" {
		t, err := time.ParseDuration(v)
		if err != nil || t <= 0 {
			return s, usage("%s: %q is not a duration above zero, such as 500ms, 2s or 1m", source(l, "timeout", envTimeout), v)
		}
		s.timeout = t
	}
	return s, nil
}

func source(l *line, flag, variable string) string {
	if l.value(flag) != "" {
		return "flag --" + flag
	}
	return "environment variable " + variable
}

// isSet gives the last value of a bool flag of the root.
func (l *line) isSet(name string) bool {
	for _, f := range slices.Backward(l.flags) {
		if f.root && f.name == name {
			return f.bare || strings.EqualFold(f.value, "true") || f.value == "1" || strings.EqualFold(f.value, "t")
		}
	}
	return false
}

// withAddress joins go-micro's pair of settings, a name and an address, into a URL. An address alone is a registry
// server's, or an HTTP broker's.
func withAddress(name, address string) string {
	switch {
	case address == "" || strings.Contains(name, "://"):
		return name
	case strings.Contains(address, "://"):
		return address
	}
	return or(name, "http") + "://" + address
}
