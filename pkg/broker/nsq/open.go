package nsq

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/cb02dfca/micro/internal/access"
	"github.com/cb02dfca/micro/internal/opener"
	"github.com/cb02dfca/micro/pkg/broker"
)

// EnvSecret is the environment that Open reads where the URL names no token-file.
const EnvSecret = "NSQ_AUTH_SECRET"

const (
	defaultPort   = "4150"
	defaultLookup = "4161"
)

// Open makes a broker for a URL:
//
//	nsq://nsqd:4150,nsqd2:4150?lookupd=host:4161,host2:4161
//
// Without a host and without lookupd it is the nsqd of this machine; ports that lack are 4150 and 4161. The parameters are
//
//	lookupd          Options.Lookupd
//	lookup-interval  Options.LookupInterval, such as 5s
//	timeout          Options.Timeout, such as 5s
//	max-message      Options.MaxMessage, in bytes
//	tries            Options.Tries
//	retry-wait       Options.RetryWait, such as 1s
//	ack-wait         Options.AckWait, such as 1m
//	token-file       a file of one line, Options.Secret; else EnvSecret is read
//	tls              true: TLS, with the system's authorities; each of the files below says the same
//	ca-file          PEM: the authorities that nsqd's certificate may be of
//	cert-file        PEM: this client's certificate, and
//	key-file         PEM: its key
func Open(_ context.Context, u *url.URL) (broker.Broker, error) {
	o, err := parse(u)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", broker.ErrInvalid, err)
	}
	b, err := New(o)
	if err != nil {
		return nil, err // not a Broker that holds a nil *Broker
	}
	return b, nil
}

func parse(u *url.URL) (o Options, err error) {
	switch {
	case u.User != nil:
		bare := *u
		bare.User = nil // a name alone may be the secret too
		return o, fmt.Errorf("%s: a secret does not belong in a URL: use token-file, or %s", &bare, EnvSecret)
	case u.Opaque != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return o, fmt.Errorf("%s: want nsq://host:port", opener.Redacted(u))
	}
	params, err := opener.Params(u, "lookupd", "lookup-interval", "timeout", "max-message", "tries", "retry-wait", "ack-wait",
		access.ParamToken, access.ParamTLS, access.ParamCA, access.ParamCert, access.ParamKey)
	if err != nil {
		return o, err
	}
	o.Servers, o.Lookupd = split(u.Host, defaultPort), split(params["lookupd"], defaultLookup)
	for name, field := range map[string]*time.Duration{
		"lookup-interval": &o.LookupInterval, "timeout": &o.Timeout, "retry-wait": &o.RetryWait, "ack-wait": &o.AckWait,
	} {
		if v, ok := params[name]; ok {
			if *field, err = time.ParseDuration(v); err != nil || *field <= 0 {
				return o, fmt.Errorf("nsq: %s %q is not a duration above zero, such as 10s", name, v)
			}
		}
	}
	for name, field := range map[string]*int{"max-message": &o.MaxMessage, "tries": &o.Tries} {
		if v, ok := params[name]; ok {
			if *field, err = strconv.Atoi(v); err != nil || *field <= 0 {
				return o, fmt.Errorf("nsq: %s %q is not a number above zero", name, v)
			}
		}
	}
	if o.Secret, err = access.Token(params, EnvSecret); err == nil {
		o.TLS, err = access.TLS(params)
	}
	if err != nil {
		return o, fmt.Errorf("nsq: %w", err)
	}
	return o, nil
}

// split gives the addresses of a list with commas.
func split(list, port string) (addrs []string) {
	if list == "" {
		return nil
	}
	for host := range strings.SplitSeq(list, ",") {
		if _, _, err := net.SplitHostPort(host); err != nil && host != "" {
			host = net.JoinHostPort(strings.Trim(host, "[]"), port)
		}
		addrs = append(addrs, host)
	}
	return addrs
}
