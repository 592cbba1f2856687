package googlepubsub

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/cb02dfca/micro/internal/access"
	"github.com/cb02dfca/micro/internal/opener"
	"github.com/cb02dfca/micro/pkg/broker"
)

// The environment that is read where Options and the URL say nothing. They are Google's names.
const (
	EnvProject     = "GOOGLE_CLOUD_PROJECT"
	EnvCredentials = "GOOGLE_APPLICATION_CREDENTIALS"
	EnvEmulator    = "PUBSUB_EMULATOR_HOST"
)

// Open makes a broker for a URL:
//
//	googlepubsub://project?ordering=true
//
// Without a project it is that of EnvProject. The parameters are
//
//	ordering          Options.Ordering: true or false
//	tries             Options.Tries
//	retry-wait        Options.RetryWait, such as 1s
//	timeout           Options.Timeout, such as 5s
//	max-message       Options.MaxMessage, in bytes
//	emulator          Options.Emulator, host:port; else EnvEmulator is read
//	credentials-file  Options.CredentialsFile; else EnvCredentials is read, and what else Google's libraries look for
func Open(_ context.Context, u *url.URL) (broker.Broker, error) {
	o, err := parse(u)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", broker.ErrInvalid, err)
	}
	b, err := New(o)
	if err != nil {
		return nil, err // not a Broker that holds a nil *Broker
	}
	return b, nil
}

func parse(u *url.URL) (o Options, err error) {
	switch {
	case u.User != nil:
		bare := *u
		bare.User = nil // a name alone may be a secret too
		return o, fmt.Errorf("%s: credentials do not belong in a URL: use credentials-file, or %s", &bare, EnvCredentials)
	case u.Opaque != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return o, fmt.Errorf("%s: want googlepubsub://project", opener.Redacted(u))
	}
	params, err := opener.Params(u, "ordering", "tries", "retry-wait", "timeout", "max-message", "emulator", access.ParamCredentials)
	if err != nil {
		return o, err
	}
	o.Project, o.Emulator, o.CredentialsFile = u.Host, params["emulator"], params[access.ParamCredentials]
	if v, ok := params["ordering"]; ok {
		if o.Ordering, err = strconv.ParseBool(v); err != nil {
			return o, fmt.Errorf("googlepubsub: ordering %q: want true or false", v)
		}
	}
	for name, field := range map[string]*time.Duration{"timeout": &o.Timeout, "retry-wait": &o.RetryWait} {
		if v, ok := params[name]; ok {
			if *field, err = time.ParseDuration(v); err != nil || *field <= 0 {
				return o, fmt.Errorf("googlepubsub: %s %q is not a duration above zero, such as 10s", name, v)
			}
		}
	}
	for name, field := range map[string]*int{"max-message": &o.MaxMessage, "tries": &o.Tries} {
		if v, ok := params[name]; ok {
			if *field, err = strconv.Atoi(v); err != nil || *field <= 0 {
				return o, fmt.Errorf("googlepubsub: %s %q is not a number above zero", name, v)
			}
		}
	}
	return o, nil
}
