package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/cb02dfca/micro/internal/opener"
	"github.com/cb02dfca/micro/pkg/registry"
)

// The environment that Open reads where the URL names no credentials-file. They are go-micro's names, and etcdctl's.
const (
	EnvUsername = "ETCD_USERNAME"
	EnvPassword = "ETCD_PASSWORD"
)

// Open makes a client for a URL:
//
//	etcd://host:2379,host2:2379/prefix?ttl=10s
//
// Without a host it is the etcd of this machine, without a port 2379, without a path go-micro's prefix. The parameters are
//
//	ttl               Options.TTL
//	credentials-file  Options.CredentialsFile; else EnvUsername and EnvPassword are read, where they are set
//	tls               true: TLS, with the system's authorities; each of the files below says the same
//	ca-file           PEM: the authorities that etcd's certificate may be of
//	cert-file         PEM: this client's certificate, and
//	key-file          PEM: its key
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
		return o, fmt.Errorf("registry: %s: credentials do not belong in a URL: use credentials-file, or %s and %s", u.Redacted(), EnvUsername, EnvPassword)
	case u.Opaque != "" || u.Fragment != "":
		return o, fmt.Errorf("registry: %s: want etcd://host:port/prefix", u.Redacted())
	}
	params, err := opener.Params(u, "ttl", "credentials-file", "tls", "ca-file", "cert-file", "key-file")
	if err != nil {
		return o, fmt.Errorf("registry: %w", err)
	}
	if u.Host != "" {
		for host := range strings.SplitSeq(u.Host, ",") {
			o.Endpoints = append(o.Endpoints, withPort(host))
		}
	}
	o.Prefix = strings.Trim(u.Path, "/")
	if v, ok := params["ttl"]; ok {
		if o.TTL, err = time.ParseDuration(v); err != nil || o.TTL <= 0 {
			return o, fmt.Errorf("registry: etcd: ttl %q is not a duration above zero, such as 10s", v)
		}
	}
	if o.CredentialsFile = params["credentials-file"]; o.CredentialsFile == "" {
		o.Username, o.Password = os.Getenv(EnvUsername), os.Getenv(EnvPassword)
		if (o.Username == "") != (o.Password == "") {
			return o, fmt.Errorf("registry: etcd: one of %s and %s is set without the other", EnvUsername, EnvPassword)
		}
	}
	o.TLS, err = readTLS(params)
	return o, err
}

func withPort(host string) string {
	if _, _, err := net.SplitHostPort(host); err == nil || host == "" {
		return host
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), defaultPort)
}

// readTLS gives what the parameters ask for, nil where that is no TLS.
func readTLS(params map[string]string) (*tls.Config, error) {
	ca, cert, key := params["ca-file"], params["cert-file"], params["key-file"]
	on := ca != "" || cert != "" || key != ""
	if v, ok := params["tls"]; ok {
		want, err := strconv.ParseBool(v)
		if err != nil || !want && on {
			return nil, fmt.Errorf("registry: etcd: tls=%q: want true, or nothing", v)
		}
		on = want
	}
	if !on {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		pem, err := readFile(ca)
		if err != nil {
			return nil, fmt.Errorf("registry: etcd: ca-file: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("registry: etcd: ca-file %s holds no certificate", ca)
		}
	}
	if (cert == "") != (key == "") {
		return nil, errors.New("registry: etcd: cert-file and key-file go together")
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("registry: etcd: cert-file, key-file: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// readCredentials reads "name:password". No error tells of what the file holds.
func readCredentials(name string) (user, password string, err error) {
	data, err := readFile(name)
	if err != nil {
		return "", "", fmt.Errorf("registry: etcd: credentials file: %w", err)
	}
	user, password, found := strings.Cut(strings.TrimRight(string(data), "\r\n"), ":")
	if !found || user == "" || password == "" || strings.ContainsAny(user+password, "\r\n") {
		return "", "", fmt.Errorf("registry: etcd: credentials file %s: want one line, name:password", name)
	}
	return user, password, nil
}

// readFile reads a small file.
func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return data, nil
}
