// Package natsconn is the connection to NATS that the backends on it share: how it is named by URL, who logs in, that it is made when
// it is first needed and made again for ever, and errors in the words of the backend.
//
// Nothing that is published here is lost unseen: what is published while there is no connection fails, since nothing is
// buffered for the next one, and [Conn.Publish] returns when the server has the messages.
package natsconn

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/cb02dfca/micro/internal/access"
	"github.com/cb02dfca/micro/internal/opener"
)

// The environment that Parse reads where the URL names no file. NATS_CREDS is the name of NATS's own tools.
const (
	EnvUsername = "NATS_USERNAME"
	EnvPassword = "NATS_PASSWORD"
	EnvToken    = "NATS_TOKEN"
	EnvCreds    = "NATS_CREDS" // the name of a file of NATS's own form, with a user's JWT and key
)

// DefaultTimeout bounds connecting to one server, and each confirmation, unless Options.Timeout says otherwise.
const DefaultTimeout = 5 * time.Second

const defaultPort = "4222"

// Options of a connection.
type Options struct {
	// Servers are members of the cluster, host:port, tried in turn. Default 127.0.0.1:4222.
	Servers []string
	// Username and Password are given both or not at all.
	Username, Password string
	// Token is given in place of them.
	Token string
	// CredentialsFile is given in place of both: a file of one line, "name:password", or one of NATS's own form, with a user's
	// JWT and key ("-----BEGIN NATS USER JWT-----"). The former is read once, the latter at each connection, since tools renew it.
	CredentialsFile string
	// TLS makes the connections TLS, with this configuration. Nil: in the clear, but where the server insists on TLS,
	// with the system's authorities.
	TLS *tls.Config
	// Name is how the server lists the connection. Default "micro".
	Name string
	// Timeout bounds connecting to one server, and each confirmation. Default DefaultTimeout.
	Timeout time.Duration
	// Logger is told of NATS's absence and return. Nil: nobody is.
	Logger *slog.Logger

	// NoEcho keeps what is published here from the subscriptions of this connection. What nobody else subscribes to then has no
	// responders.
	NoEcho bool

	// Words are the backend's, for errors.
	Words Words
	// Up, where it is set, is called when a connection was made, and the subscriptions of Conn.Subscribe stand again. nc is the
	// same each time, but where nats.go gave the former one up. Down is called when the connection is lost. Failed is called with what nats.go reports beside: a
	// subscription whose messages were dropped (nats.ErrSlowConsumer), a permission that lacks; sub may be nil. They are
	// called one at a time, are to return soon, and must not call Conn.Close.
	Up     func(nc *nats.Conn)
	Down   func(reason error)
	Failed func(sub *nats.Subscription, err error)
}

// Words say how a backend names errors.
type Words struct {
	// Interface is what errors begin with: "broker".
	Interface string
	// Unavailable and Closed are the interface's sentinels, whose texts begin with Interface.
	Unavailable, Closed error
}

// Parse reads a URL:
//
//	nats://host:4222,host2:4222?credentials-file=...
//
// Without a host it is the server of this machine, without a port 4222. It takes the parameters of TLS and logins that package access
// names, and known beside, which it gives back. Without credentials-file and token-file the environment has the login.
// A login in the URL is refused. Errors begin with words.Interface.
func Parse(u *url.URL, words Words, known ...string) (Options, map[string]string, error) {
	o := Options{Words: words}
	switch {
	case u.User != nil:
		return o, nil, fmt.Errorf("%s: %s: credentials do not belong in a URL: use credentials-file or token-file, or %s and %s, or %s",
			words.Interface, opener.Redacted(u), EnvUsername, EnvPassword, EnvToken)
	case u.Opaque != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return o, nil, fmt.Errorf("%s: %s: want nats://host:port", words.Interface, opener.Redacted(u))
	}
	known = append(known, access.ParamCredentials, access.ParamToken, access.ParamTLS, access.ParamCA, access.ParamCert, access.ParamKey)
	params, err := opener.Params(u, known...)
	if err != nil {
		return o, nil, fmt.Errorf("%s: %w", words.Interface, err)
	}
	if u.Host != "" {
		for host := range strings.SplitSeq(u.Host, ",") {
			o.Servers = append(o.Servers, withPort(host))
		}
	}
	if err = o.login(params); err == nil {
		o.TLS, err = access.TLS(params)
	}
	if err != nil {
		return o, nil, fmt.Errorf("%s: nats: %w", words.Interface, err)
	}
	return o, params, nil
}

// login takes what the parameters name, else what stands in the environment.
func (o *Options) login(params map[string]string) (err error) {
	if file, token := params[access.ParamCredentials], params[access.ParamToken]; file != "" || token != "" {
		if file != "" && token != "" {
			return fmt.Errorf("both %s and %s are given", access.ParamCredentials, access.ParamToken)
		}
		o.CredentialsFile = file
		if token != "" {
			o.Token, err = access.ReadToken(token)
		}
		return err
	}
	o.CredentialsFile = os.Getenv(EnvCreds)
	if o.Username, o.Password, err = access.Login(params, EnvUsername, EnvPassword); err != nil {
		return err
	}
	o.Token, err = access.Token(params, EnvToken)
	return err
}

func withPort(host string) string {
	if _, _, err := net.SplitHostPort(host); err == nil || host == "" {
		return host
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), defaultPort)
}

// complete checks o and fills in what is not set.
func (o *Options) complete() error {
	if len(o.Servers) == 0 {
		o.Servers = []string{"127.0.0.1:" + defaultPort}
	}
	for _, s := range o.Servers {
		host, port, err := net.SplitHostPort(s)
		if n, e := strconv.ParseUint(port, 10, 16); err != nil || e != nil || n == 0 || host == "" || strings.ContainsAny(s, "/@, ") {
			return fmt.Errorf("server %q: want host:port", s)
		}
	}
	ways := 0
	for _, given := range []bool{o.Username != "" || o.Password != "", o.Token != "", o.CredentialsFile != ""} {
		if given {
			ways++
		}
	}
	if ways > 1 {
		return errors.New("more than one login is given: want a user and a password, a token, or a credentials file")
	}
	if o.Timeout < 0 {
		return errors.New("the timeout is negative")
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Name == "" {
		o.Name = "micro"
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if err := o.readCredentials(); err != nil {
		return err
	}
	if (o.Username == "") != (o.Password == "") {
		return errors.New("a user needs a name and a password")
	}
	return nil
}

// readCredentials reads a file of one line; one of NATS's own form is left to each connection, once it was seen to hold what it should.
func (o *Options) readCredentials() error {
	if o.CredentialsFile == "" {
		return nil
	}
	own, err := isCreds(o.CredentialsFile)
	if err != nil || own {
		return err
	}
	if o.Username, o.Password, err = access.ReadLogin(o.CredentialsFile); err != nil {
		return err
	}
	o.CredentialsFile = ""
	return nil
}

// isCreds reports whether a file is of NATS's own form, and gives an error where it is and holds no login.
func isCreds(file string) (bool, error) {
	f, err := os.Open(file)
	if err != nil {
		return false, fmt.Errorf("credentials file: %w", err)
	}
	defer f.Close()
	head := make([]byte, 64)
	n, _ := f.Read(head)
	if !strings.Contains(string(head[:n]), "BEGIN NATS USER JWT") {
		return false, nil
	}
	login := nats.GetDefaultOptions()
	if err := nats.UserCredentials(file)(&login); err != nil {
		return true, fmt.Errorf("credentials file %s: want a user's JWT and key", file)
	}
	_, noJWT := login.UserJWT()
	if _, err := login.SignatureCB([]byte("nonce")); err != nil || noJWT != nil {
		return true, fmt.Errorf("credentials file %s: want a user's JWT and key", file)
	}
	return true, nil
}
