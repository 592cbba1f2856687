// Package opener opens a driver by URL: a registry, a transport, a broker.
package opener

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// ErrUnknown is wrapped by the error of a scheme that is not in the set.
var ErrUnknown = errors.New("unknown scheme")

// Func opens what u names. It refuses a parameter that it does not know (see [Params]).
type Func[T any] func(ctx context.Context, u *url.URL) (T, error)

// Set maps a URL's scheme to what opens it. It is an ordinary map: whoever makes it owns it, and nothing is added
// to it at a distance.
type Set[T any] map[string]Func[T]

// Open opens raw: "etcd://host:2379", or a bare scheme such as "mdns". The error of an unknown scheme names the
// known ones and wraps ErrUnknown.
func (s Set[T]) Open(ctx context.Context, raw string) (T, error) {
	var none T
	if raw == "" {
		return none, fmt.Errorf("no URL: want one of %s", s.schemes())
	}
	if name, query, _ := strings.Cut(raw, "?"); !strings.Contains(name, ":") { // a bare scheme: "mdns?scope=lan"
		raw = name + "://"
		if query != "" {
			raw += "?" + query
		}
	}
	u, err := url.Parse(raw)
	if err != nil {
		if strings.Contains(raw, "@") { // what is wrong may be a part of a password
			return none, errors.New("not a URL: its host, port or user information has a character that does not belong there; credentials do not belong in it at all")
		}
		if e := (*url.Error)(nil); errors.As(err, &e) {
			err = e.Err // without the text, which is the caller's to show
		}
		return none, fmt.Errorf("not a URL: %w", err)
	}
	open, ok := s[u.Scheme]
	if !ok {
		return none, fmt.Errorf("%w %q, known: %s", ErrUnknown, u.Scheme, s.schemes())
	}
	opened, err := open(ctx, u)
	if err != nil {
		return none, err // not what came with the error: a nil pointer in an interface is not nil
	}
	return opened, nil
}

func (s Set[T]) schemes() string { return strings.Join(slices.Sorted(maps.Keys(s)), ", ") }

// Params gives u's query parameters and refuses one that is not among known, or that stands twice.
func Params(u *url.URL, known ...string) (map[string]string, error) {
	values, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", Redacted(u), err)
	}
	out := make(map[string]string, len(values))
	for key, vs := range values {
		if !slices.Contains(known, key) {
			takes := "none"
			if len(known) > 0 {
				takes = strings.Join(known, ", ")
			}
			return nil, fmt.Errorf("%s: unknown parameter %q, %s takes: %s", Redacted(u), key, u.Scheme, takes)
		}
		if len(vs) > 1 {
			return nil, fmt.Errorf("%s: parameter %q stands %d times", Redacted(u), key, len(vs))
		}
		out[key] = vs[0]
	}
	return out, nil
}
