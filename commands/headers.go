package commands

import (
	"strings"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/transport"
)

// headers is what -H gives: metadata, and the content type, which is not part of it.
type headers struct {
	metadata    metadata.MD
	contentType string
}

// readHeaders reads -H KEY:VALUE. ${NAME} in a value stands for a variable of the environment, so that a secret need not
// be typed into the shell's history.
func (in *invocation) readHeaders() (headers, error) {
	var h headers
	for _, word := range in.flags.StringSlice("header") {
		key, value, found := strings.Cut(word, ":")
		if !found {
			key, value, found = strings.Cut(word, "=")
		}
		key = strings.ToLower(strings.TrimSpace(key))
		if !found || key == "" {
			return h, usage("flag -H: %q is not KEY:VALUE", clipText(word))
		}
		value, err := in.expand(strings.TrimSpace(value))
		if err != nil {
			return h, err
		}
		switch {
		case key == transport.HeaderContentType:
			h.contentType = value
		case transport.Reserved(key):
			return h, usage("flag -H: %q is the framework's own: names that begin with micro- are not sent", key)
		default:
			if h.metadata, err = h.metadata.Set(key, value); err != nil {
				return h, usage("flag -H: %s", strings.TrimPrefix(err.Error(), "metadata: ")).because(err)
			}
		}
	}
	return h, nil
}

// expand puts variables of the environment in the place of ${NAME}.
func (in *invocation) expand(s string) (string, error) {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(s, "${")
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed {
			return "", usage("flag -H: ${ is not closed")
		}
		value, set := in.Env(name)
		if !set {
			return "", usage("flag -H: the environment has no variable %s", name)
		}
		b.WriteString(value)
		s = after
	}
}
