package wire

import (
	"errors"
	"strings"
)

// MaxToken bounds a token: with the rest of a request's head it stays below what servers take.
const MaxToken = 4096

var errToken = errors.New("registry: the token holds white space or what is not ASCII, or is longer than 4096 bytes")

// CheckToken refuses a token that cannot stand in a header: a server asks for none that no client can send.
func CheckToken(token string) error {
	if len(token) > MaxToken || strings.ContainsFunc(token, func(c rune) bool { return c <= ' ' || c >= 0x7f }) {
		return errToken
	}
	return nil
}
