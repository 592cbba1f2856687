package websocket

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/cb02dfca/micro/internal/access"
	"github.com/cb02dfca/micro/internal/opener"
	"github.com/cb02dfca/micro/pkg/transport"
)

// EnvToken is the environment variable that Open reads the token from where the URL names no token-file.
const EnvToken = "MICRO_WEBSOCKET_TOKEN"

// Open is the transport.Opener of the URLs "ws://" and "wss://", which is TLS. They name no host: addresses are set on their
// own. The path is Options.Path. The parameters are
//
//	token-file   one line: Options.Token; else EnvToken is read, where it is set
//	origins      Options.Origins, separated by commas
//	hosts        Options.AllowedHosts, separated by commas
//	max-message  Options.MaxMessage
//	insecure     true: Options.Insecure
//
// and, of wss alone,
//
//	ca-file      PEM: the authorities that the peer's certificate may be of; default the system's
//	cert-file    PEM: the certificate of a listener, or of a client that is asked for one, and
//	key-file     PEM: its key
//
// and client-ca-file, PEM: a listener asks its clients for a certificate of these authorities
func Open(_ context.Context, u *url.URL) (transport.Transport, error) {
	o, err := parse(u)
	if err != nil {
		return nil, fmt.Errorf("transport/websocket: %w", err)
	}
	t, err := New(o)
	if err != nil {
		return nil, err // not a Transport that holds a nil *Transport
	}
	return t, nil
}

func parse(u *url.URL) (o Options, err error) {
	known := []string{access.ParamToken, "origins", "hosts", "max-message", "insecure"}
	if u.Scheme == "wss" {
		known = append(known, access.ParamCA, access.ParamCert, access.ParamKey, access.ParamClientCA)
	}
	params, err := opener.Params(u, known...)
	switch {
	case err != nil:
		return o, err
	case u.User != nil:
		return o, fmt.Errorf("%s: credentials do not belong in a URL: use token-file, or %s", opener.Redacted(u), EnvToken)
	case u.Host != "" || u.Opaque != "" || u.Fragment != "":
		return o, fmt.Errorf("%s: the transport's URL names no host: the address is set on its own", opener.Redacted(u))
	}
	o.Path = u.Path
	if v, ok := params["max-message"]; ok {
		if o.MaxMessage, err = strconv.Atoi(v); err != nil || o.MaxMessage < 1 {
			return o, fmt.Errorf("parameter max-message: %q is no number of bytes", v)
		}
	}
	if v, ok := params["insecure"]; ok {
		if o.Insecure, err = strconv.ParseBool(v); err != nil {
			return o, fmt.Errorf("insecure=%q: want true, or nothing", v)
		}
	}
	for name, list := range map[string]*[]string{"origins": &o.Origins, "hosts": &o.AllowedHosts} {
		if v := params[name]; v != "" {
			*list = strings.Split(v, ",")
		}
	}
	if o.Token, err = access.Token(params, EnvToken); err != nil {
		return o, err
	}
	if u.Scheme == "wss" {
		params[access.ParamTLS] = "true"
		if o.TLSConfig, err = access.TLS(params); err == nil && o.TLSConfig == nil {
			err = errors.New("wss without TLS")
		}
	}
	return o, err
}
