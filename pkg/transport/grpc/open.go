package grpc

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

// Open is the transport.Opener of the URLs "grpc://" and "grpcs://", which is TLS. They name no host: addresses are set on their
// own. The parameters are
//
//	gzip         true: Options.Gzip
//	hosts        Options.AllowedHosts, separated by commas
//	max-message  Options.MaxMessage
//
// and, of grpcs alone,
//
//	ca-file         PEM: the authorities that the peer's certificate may be of; default the system's
//	cert-file       PEM: the certificate of a listener, or of a client that is asked for one, and
//	key-file        PEM: its key
//	client-ca-file  PEM: a listener asks its clients for a certificate of these authorities
func Open(_ context.Context, u *url.URL) (transport.Transport, error) {
	o, err := parse(u)
	if err != nil {
		return nil, fmt.Errorf("transport/grpc: %w", err)
	}
	t, err := New(o)
	if err != nil {
		return nil, err // not a Transport that holds a nil *Transport
	}
	return t, nil
}

func parse(u *url.URL) (o Options, err error) {
	known := []string{"gzip", "hosts", "max-message"}
	if u.Scheme == "grpcs" {
		known = append(known, access.ParamCA, access.ParamCert, access.ParamKey, access.ParamClientCA)
	}
	params, err := opener.Params(u, known...)
	switch {
	case err != nil:
		return o, err
	case u.User != nil:
		return o, fmt.Errorf("%s: credentials do not belong in a URL: give them as metadata", opener.Redacted(u))
	case u.Host != "" || u.Opaque != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return o, fmt.Errorf("%s: the transport's URL names no host: the address is set on its own", opener.Redacted(u))
	}
	if v, ok := params["max-message"]; ok {
		if o.MaxMessage, err = strconv.Atoi(v); err != nil || o.MaxMessage < 1 {
			return o, fmt.Errorf("parameter max-message: %q is no number of bytes", v)
		}
	}
	if v, ok := params["gzip"]; ok {
		if o.Gzip, err = strconv.ParseBool(v); err != nil {
			return o, fmt.Errorf("gzip=%q: want true, or nothing", v)
		}
	}
	if v := params["hosts"]; v != "" {
		o.AllowedHosts = strings.Split(v, ",")
	}
	if u.Scheme == "grpcs" {
		params[access.ParamTLS] = "true"
		if o.TLSConfig, err = access.TLS(params); err == nil && o.TLSConfig == nil {
			err = errors.New("grpcs without TLS")
		}
	}
	return o, err
}
