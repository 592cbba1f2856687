// Program operator writes what a NATS server in operator mode needs, and the credentials of users, to a folder:
//
//	operator.conf  for the server's configuration: an operator, a system account and one account, with streams
//	svc.creds      a user that may do all
//	guest.creds    a user that may publish and subscribe to "free" alone
//	late.creds     a user whose time is over
//	other.creds    a user of an account that the server does not know
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
)

// usage: operator DIR
func main() {
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func write(dir string) error {
	operator, operatorKey, err := pair(nkeys.CreateOperator)
	if err != nil {
		return err
	}
	account := func(name string, limits jwt.JetStreamLimits) (token, public string, key nkeys.KeyPair, err error) {
		key, public, err = pair(nkeys.CreateAccount)
		if err != nil {
			return "", "", nil, err
		}
		claims := jwt.NewAccountClaims(public)
		claims.Name = name
		claims.Limits.JetStreamLimits = limits
		token, err = claims.Encode(operator)
		return token, public, key, err
	}
	system, systemKey, _, err := account("SYS", jwt.JetStreamLimits{})
	if err != nil {
		return err
	}
	streams := jwt.JetStreamLimits{MemoryStorage: jwt.NoLimit, DiskStorage: jwt.NoLimit, Streams: jwt.NoLimit, Consumer: jwt.NoLimit}
	known, knownKey, signer, err := account("fleet", streams)
	if err != nil {
		return err
	}
	_, _, foreign, err := account("other", streams)
	if err != nil {
		return err
	}
	claims := jwt.NewOperatorClaims(operatorKey)
	claims.Name, claims.SystemAccount = "test", systemKey
	token, err := claims.Encode(operator)
	if err != nil {
		return err
	}
	conf := fmt.Sprintf("operator: %q\nsystem_account: %s\nresolver: MEMORY\nresolver_preload: {%s: %q, %s: %q}\n", token, systemKey, systemKey, system, knownKey, known)
	if err := os.WriteFile(filepath.Join(dir, "operator.conf"), []byte(conf), 0o600); err != nil {
		return err
	}
	for _, u := range []struct {
		name   string
		signer nkeys.KeyPair
		change func(*jwt.UserClaims)
	}{
		{"svc", signer, func(*jwt.UserClaims) {}},
		{"guest", signer, func(c *jwt.UserClaims) { c.Pub.Allow.Add("free"); c.Sub.Allow.Add("free") }},
		{"late", signer, func(c *jwt.UserClaims) { c.Expires = time.Now().Add(-time.Hour).Unix() }},
		{"other", foreign, func(*jwt.UserClaims) {}},
	} {
		if err := user(filepath.Join(dir, u.name+".creds"), u.name, u.signer, u.change); err != nil {
			return err
		}
	}
	return nil
}

// pair makes a key, and gives its public half beside.
func pair(create func() (nkeys.KeyPair, error)) (nkeys.KeyPair, string, error) {
	key, err := create()
	if err != nil {
		return nil, "", err
	}
	public, err := key.PublicKey()
	return key, public, err
}

// user writes the credentials of a user.
func user(file, name string, signer nkeys.KeyPair, change func(*jwt.UserClaims)) error {
	key, public, err := pair(nkeys.CreateUser)
	if err != nil {
		return err
	}
	claims := jwt.NewUserClaims(public)
	claims.Name = name
	change(claims)
	token, err := claims.Encode(signer)
	if err != nil {
		return err
	}
	seed, err := key.Seed()
	if err != nil {
		return err
	}
	creds, err := jwt.FormatUserConfig(token, seed)
	if err != nil {
		return err
	}
	return os.WriteFile(file, creds, 0o600)
}
