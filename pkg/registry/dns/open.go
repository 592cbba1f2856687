package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/cb02dfca/micro/internal/access"
	"github.com/cb02dfca/micro/internal/opener"
	"github.com/cb02dfca/micro/pkg/registry"
)

// The environment that Open reads where the URL names no tsig-file.
const (
	EnvKeyFile = "DNS_TSIG_FILE" // the same file
	EnvKey     = "DNS_TSIG_KEY"  // the key itself, name:algorithm:secret
)

// Open makes a client for a URL:
//
//	dns://host:53,host2:53/svc.example.org?tsig-file=/etc/micro.key
//
// Without a host it is the nameservers of /etc/resolv.conf, without a port 53, or 853 with TLS. The parameters are
//
//	domain     Options.Zone, where it is not the path
//	srv        Options.SRV
//	services   Options.Services, with commas between them
//	tsig-file  Options.KeyFile; else EnvKeyFile and EnvKey are read, where one is set
//	ttl        Options.TTL
//	poll       Options.Poll
//	skew       Options.Skew
//	tcp        true: Options.TCP
//	tls        true: TLS, with the system's authorities; each of the files below says the same
//	ca-file    PEM: the authorities that the nameserver's certificate may be of
//	cert-file  PEM: this client's certificate, and
//	key-file   PEM: its key
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
		return o, fmt.Errorf("registry: %s: keys do not belong in a URL: use tsig-file, %s or %s", opener.Redacted(u), EnvKeyFile, EnvKey)
	case u.Opaque != "" || u.Fragment != "":
		return o, fmt.Errorf("registry: %s: want dns://host:port/zone", opener.Redacted(u))
	}
	params, err := opener.Params(u, "domain", "srv", "services", "tsig-file", "ttl", "poll", "skew", "tcp", access.ParamTLS, access.ParamCA, access.ParamCert, access.ParamKey)
	if err != nil {
		return o, fmt.Errorf("registry: %w", err)
	}
	if err := o.take(u, params); err != nil {
		return o, fmt.Errorf("registry: dns: %w", err)
	}
	return o, nil
}

// take sets what a URL says.
func (o *Options) take(u *url.URL, params map[string]string) error {
	var err error
	o.Zone, o.SRV = strings.Trim(u.Path, "/"), params["srv"]
	if d := params["domain"]; d != "" {
		if o.Zone != "" {
			return errors.New("the zone is given twice, as the path and as domain")
		}
		o.Zone = d
	}
	if names := params["services"]; names != "" {
		o.Services = strings.Split(names, ",")
	}
	for name, to := range map[string]*time.Duration{"ttl": &o.TTL, "poll": &o.Poll, "skew": &o.Skew} {
		if v, ok := params[name]; ok {
			if *to, err = time.ParseDuration(v); err != nil || *to <= 0 {
				return fmt.Errorf("%s %q is not a duration above zero, such as 10s", name, v)
			}
		}
	}
	if v, ok := params["tcp"]; ok {
		if o.TCP, err = strconv.ParseBool(v); err != nil {
			return fmt.Errorf("tcp=%q: want true, or nothing", v)
		}
	}
	if o.TLS, err = access.TLS(params); err != nil {
		return err
	}
	if u.Host != "" {
		for host := range strings.SplitSeq(u.Host, ",") {
			o.Servers = append(o.Servers, withPort(host, o.TLS != nil))
		}
	}
	return o.takeKey(params["tsig-file"])
}

// takeKey gets the key from where it is.
func (o *Options) takeKey(file string) error {
	line, env := os.Getenv(EnvKey), os.Getenv(EnvKeyFile)
	switch {
	case file != "":
		o.KeyFile = file
	case line != "" && env != "":
		return fmt.Errorf("both %s and %s are set", EnvKey, EnvKeyFile)
	case env != "":
		o.KeyFile = env
	case line != "":
		var err error
		if o.Key, err = ParseKey(line); err != nil {
			return fmt.Errorf("%s: %w", EnvKey, err)
		}
	}
	return nil
}

func withPort(host string, tls bool) string {
	if _, _, err := net.SplitHostPort(host); err == nil || host == "" {
		return host
	}
	port := plainPort
	if tls {
		port = tlsPort
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), port)
}
