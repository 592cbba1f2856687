// Package access reads how a program gets into a server that it names by URL: TLS, a login, a token. Secrets come from files
// and from the environment, never from the URL; no error tells of what a file holds.
package access

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// The parameters of a URL that TLS, Login and Token read.
const (
	ParamTLS         = "tls"              // true: TLS, with the system's authorities; each of the next four files says the same
	ParamCA          = "ca-file"          // PEM: the authorities that the server's certificate may be of
	ParamCert        = "cert-file"        // PEM: this program's certificate, and
	ParamKey         = "key-file"         // PEM: its key
	ParamClientCA    = "client-ca-file"   // PEM: the authorities that a listener wants its clients' certificates of
	ParamCredentials = "credentials-file" // one line, name:password
	ParamToken       = "token-file"       // one line, the token
)

// maxFile bounds what is read of a file.
const maxFile = 1 << 20

// TLS gives what the parameters ask for, nil where that is no TLS.
func TLS(params map[string]string) (*tls.Config, error) {
	ca, cert, key := params[ParamCA], params[ParamCert], params[ParamKey]
	clients := params[ParamClientCA]
	on := ca != "" || cert != "" || key != "" || clients != ""
	if v, ok := params[ParamTLS]; ok {
		want, err := strconv.ParseBool(v)
		if err != nil || !want && on {
			return nil, fmt.Errorf("%s=%q: want true, or nothing", ParamTLS, v)
		}
		on = want
	}
	if !on {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		pool, err := authorities(ParamCA, ca)
		if err != nil {
			return nil, err
		}
		config.RootCAs = pool
	}
	if clients != "" {
		pool, err := authorities(ParamClientCA, clients)
		if err != nil {
			return nil, err
		}
		config.ClientCAs, config.ClientAuth = pool, tls.RequireAndVerifyClientCert
	}
	if (cert == "") != (key == "") {
		return nil, errors.New(ParamCert + " and " + ParamKey + " go together")
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("%s, %s: %w", ParamCert, ParamKey, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

func authorities(param, file string) (*x509.CertPool, error) {
	pem, err := readFile(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", param, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s %s holds no certificate", param, file)
	}
	return pool, nil
}

// Login gives a user's name and password: those of the file that the parameters name, else those of the two environment
// variables, which are both set or none. Both are empty where there is no login.
func Login(params map[string]string, envUser, envPassword string) (user, password string, err error) {
	if file := params[ParamCredentials]; file != "" {
		return ReadLogin(file)
	}
	user, password = os.Getenv(envUser), os.Getenv(envPassword)
	if (user == "") != (password == "") {
		return "", "", fmt.Errorf("one of %s and %s is set without the other", envUser, envPassword)
	}
	return user, password, nil
}

// Token gives the token of the file that the parameters name, else that of the environment variable; empty where there is
// none.
func Token(params map[string]string, env string) (string, error) {
	if file := params[ParamToken]; file != "" {
		return ReadToken(file)
	}
	token := os.Getenv(env)
	if strings.ContainsAny(token, "\r\n") {
		return "", fmt.Errorf("%s holds more than one line", env)
	}
	return token, nil
}

// ReadLogin reads a file of one line, "name:password"; the name has no colon.
func ReadLogin(file string) (user, password string, err error) {
	data, err := readFile(file)
	if err != nil {
		return "", "", fmt.Errorf("credentials file: %w", err)
	}
	user, password, found := strings.Cut(strings.TrimRight(string(data), "\r\n"), ":")
	if !found || user == "" || password == "" || strings.ContainsAny(user+password, "\r\n") {
		return "", "", fmt.Errorf("credentials file %s: want one line, name:password", file)
	}
	return user, password, nil
}

// CompleteLogin reads a login from a file, where one is named, and checks that user and password are given both or not at all, and
// not beside a file.
func CompleteLogin(user, password *string, file string) (err error) {
	switch {
	case file != "" && (*user != "" || *password != ""):
		return errors.New("both a user and a credentials file are given")
	case file != "":
		*user, *password, err = ReadLogin(file)
		return err
	case (*user == "") != (*password == ""):
		return errors.New("a user needs a name and a password")
	}
	return nil
}

// ReadToken reads a file of one line.
func ReadToken(file string) (string, error) {
	data, err := readFile(file)
	if err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	token := strings.TrimRight(string(data), "\r\n")
	if token == "" || strings.ContainsAny(token, "\r\n") {
		return "", fmt.Errorf("token file %s: want one line, the token", file)
	}
	return token, nil
}

// readFile reads a small file.
func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return data, nil
}
