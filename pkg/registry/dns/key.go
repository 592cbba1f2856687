package dns

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	wire "github.com/miekg/dns"
)

// Key is a TSIG key: a secret that a nameserver and its clients share. It prints as its name.
type Key struct {
	Name      string // "micro-update"
	Algorithm string // "hmac-sha256", which is the default; also sha224, sha384, sha512, sha1
	Secret    string // base64
}

const maxKeyFile = 1 << 16

var algorithms = []string{wire.HmacSHA256, wire.HmacSHA224, wire.HmacSHA384, wire.HmacSHA512, wire.HmacSHA1}

// errKey tells of no key's content.
var errKey = errors.New(`want a key as BIND writes it, key "name" { algorithm hmac-sha256; secret "..."; };, or one line, name:algorithm:secret`)

// String gives the name alone.
func (k Key) String() string { return k.Name }

// GoString gives the name alone.
func (k Key) GoString() string { return fmt.Sprintf("dns.Key{Name: %q}", k.Name) }

// ReadKey reads a key from a file, as ParseKey does.
func ReadKey(file string) (Key, error) {
	f, err := os.Open(file)
	if err != nil {
		return Key{}, fmt.Errorf("key file: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return Key{}, fmt.Errorf("key file %s: %w", file, err)
	}
	k, err := ParseKey(string(data))
	if err != nil {
		return Key{}, fmt.Errorf("key file %s: %w", file, err)
	}
	return k, nil
}

// ParseKey reads a key as tsig-keygen and rndc-confgen write it, or as one line, name:algorithm:secret. An empty algorithm is
// hmac-sha256. No error tells of what the text holds.
func ParseKey(text string) (Key, error) {
	var k Key
	if line := strings.TrimSpace(text); !strings.ContainsAny(line, "{}\r\n") && strings.Count(line, ":") == 2 {
		parts := strings.Split(line, ":")
		k = Key{Name: parts[0], Algorithm: parts[1], Secret: parts[2]}
	} else if err := k.statement(words(text)); err != nil {
		return Key{}, err
	}
	return k, k.complete()
}

// statement reads BIND's form.
func (k *Key) statement(w []string) error {
	if len(w) < 4 || w[0] != "key" || w[2] != "{" {
		return errKey
	}
	k.Name = w[1]
	for w = w[3:]; len(w) >= 3 && w[0] != "}"; w = w[3:] {
		switch {
		case w[2] != ";":
			return errKey
		case w[0] == "algorithm":
			k.Algorithm = w[1]
		case w[0] == "secret":
			k.Secret = w[1]
		}
	}
	if !slices.Equal(w, []string{"}", ";"}) && !slices.Equal(w, []string{"}"}) {
		return errKey
	}
	return nil
}

// words gives the words and marks of BIND's configuration, without its quotes and comments.
func words(text string) []string {
	var out []string
	for text = strings.TrimSpace(text); text != ""; text = strings.TrimSpace(text) {
		n := strings.IndexAny(text[1:], " \t\r\n{};\"") + 1
		switch {
		case text[0] == '#' || strings.HasPrefix(text, "//"):
			_, text, _ = strings.Cut(text, "\n")
			continue
		case strings.HasPrefix(text, "/*"):
			_, text, _ = strings.Cut(text, "*/")
			continue
		case text[0] == '"':
			var quoted string
			quoted, text, _ = strings.Cut(text[1:], `"`)
			out = append(out, quoted)
			continue
		case strings.IndexByte("{};", text[0]) >= 0:
			n = 1
		case n == 0:
			n = len(text)
		}
		out, text = append(out, text[:n]), text[n:]
	}
	return out
}

// complete checks a key, and makes its names those of messages.
func (k *Key) complete() error {
	if _, ok := wire.IsDomainName(k.Name); !ok || k.Name == "" || k.Name == "." {
		return fmt.Errorf("a key without a name that DNS takes: %w", errKey)
	}
	k.Name = wire.CanonicalName(k.Name)
	if k.Algorithm == "" {
		k.Algorithm = wire.HmacSHA256
	}
	if k.Algorithm = wire.CanonicalName(k.Algorithm); !slices.Contains(algorithms, k.Algorithm) {
		return fmt.Errorf("key %s: its algorithm is none of %s", k.Name, strings.ReplaceAll(strings.Join(algorithms, " "), ".", ""))
	}
	if secret, err := base64.StdEncoding.DecodeString(k.Secret); err != nil || len(secret) == 0 {
		return fmt.Errorf("key %s: its secret is not base64", k.Name)
	}
	return nil
}
