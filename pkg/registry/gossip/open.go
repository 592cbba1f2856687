package gossip

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/cb02dfca/micro/internal/opener"
	"github.com/cb02dfca/micro/pkg/registry"
)

// Open makes a member for a URL:
//
//	gossip://seed1:7946,seed2:7946?bind=host:port&key-file=path
//
// Without a host it is a member on this machine alone; a host without a port has 7946. The parameters are
//
//	bind       Options.Bind
//	advertise  Options.Advertise
//	key-file   Options.KeyFile; else EnvKey is read, where it is set
//	insecure   true: Options.Insecure
func Open(_ context.Context, u *url.URL) (registry.Registry, error) {
	o, err := parse(u)
	if err != nil {
		return nil, err
	}
	r, err := New(o)
	if err != nil {
		return nil, err // not a Registry that holds a nil *Registry
	}
	return r, nil
}

func parse(u *url.URL) (Options, error) {
	var o Options
	switch {
	case u.User != nil:
		return o, fmt.Errorf("registry: %s: a key does not belong in a URL: use key-file, or %s", opener.Redacted(u), EnvKey)
	case u.Opaque != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return o, fmt.Errorf("registry: %s: want gossip://host:port,host:port", opener.Redacted(u))
	}
	params, err := opener.Params(u, "bind", "advertise", "key-file", "insecure")
	if err != nil {
		return o, fmt.Errorf("registry: %w", err)
	}
	if u.Host != "" {
		for host := range strings.SplitSeq(u.Host, ",") {
			o.Seeds = append(o.Seeds, withPort(host))
		}
	}
	o.Bind, o.Advertise, o.KeyFile = params["bind"], params["advertise"], params["key-file"]
	if v, ok := params["insecure"]; ok {
		if o.Insecure, err = strconv.ParseBool(v); err != nil {
			return o, fmt.Errorf("registry: gossip: insecure=%q: want true, or nothing", v)
		}
	}
	if key := os.Getenv(EnvKey); key != "" && o.KeyFile == "" {
		if o.Key, err = parseKey(key); err != nil {
			return o, fmt.Errorf("registry: gossip: %s: %w", EnvKey, err)
		}
	}
	return o, nil
}

func withPort(host string) string {
	if _, _, err := net.SplitHostPort(host); err == nil || host == "" {
		return host
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), defaultPort)
}
