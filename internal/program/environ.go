package program

import (
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	headerPrefix = "MICRO_HEADER_"
	// maxHeaderSum bounds all metadata variables of a call together, in bytes. Metadata has limits of its own, which are
	// lower; this one holds whatever they become, for an environment that is too long keeps a process from starting.
	maxHeaderSum = 32 << 10
)

// reserved are the variables that a call sets.
func reserved(name string) bool {
	switch name {
	case "MICRO_SERVICE", "MICRO_VERSION", "MICRO_NODE", "MICRO_ENDPOINT", "MICRO_TOPIC", "MICRO_REQUEST_ID",
		"MICRO_DEADLINE_MS", "MICRO_CONTENT_TYPE", "MICRO_CALLER", "TRACEPARENT":
		return true
	}
	return strings.HasPrefix(name, headerPrefix)
}

// passed says which variables of our own environment a process gets.
func passed(name string) bool {
	switch name {
	case "PATH", "HOME", "LANG", "TZ", "TMPDIR":
		return true
	}
	if strings.HasPrefix(name, "LC_") {
		return true
	}
	if runtime.GOOS != "windows" {
		return false
	}
	switch strings.ToUpper(name) {
	case "PATH", "PATHEXT", "SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "TEMP", "TMP", "USERPROFILE", "APPDATA", "LOCALAPPDATA", "PROGRAMDATA":
		return true
	}
	return false
}

// baseEnviron gives the variables that are the same for all calls.
func baseEnviron(o *Options) ([]string, error) {
	var out []string
	for _, kv := range o.Environ {
		if name, _, ok := strings.Cut(kv, "="); ok && passed(name) {
			out = append(out, kv)
		}
	}
	for _, kv := range o.Env {
		name, _, ok := strings.Cut(kv, "=")
		switch {
		case !ok || name == "" || strings.ContainsRune(kv, 0):
			return nil, fmt.Errorf("%w: environment %q, want NAME=value", ErrInvalid, name)
		case reserved(name):
			return nil, fmt.Errorf("%w: environment: %s is set by each call", ErrInvalid, name)
		}
		out = slices.DeleteFunc(out, func(have string) bool { return strings.HasPrefix(have, name+"=") })
		out = append(out, kv)
	}
	for _, v := range [][2]string{{"MICRO_SERVICE", o.Service}, {"MICRO_VERSION", o.Version}, {"MICRO_NODE", o.Node}} {
		if strings.ContainsRune(v[1], 0) {
			return nil, fmt.Errorf("%w: %s holds a NUL byte", ErrInvalid, v[0])
		}
		out = append(out, v[0]+"="+v[1])
	}
	return out, nil
}

// callEnviron gives the variables of one call. None of them can be taken for another's name, and none holds a NUL byte.
func (p *Program) callEnviron(r *Request, left time.Duration) []string {
	env := make([]string, len(p.environ), len(p.environ)+8+r.Header.Len())
	copy(env, p.environ)
	set := func(name, value string) {
		if len(value) <= maxHeaderSum && !strings.ContainsRune(value, 0) {
			env = append(env, name+"="+value)
		}
	}
	set("MICRO_ENDPOINT", r.Endpoint)
	set("MICRO_TOPIC", r.Topic)
	set("MICRO_REQUEST_ID", r.ID)
	set("MICRO_DEADLINE_MS", strconv.FormatInt(max(left.Milliseconds(), 0), 10))
	set("MICRO_CONTENT_TYPE", r.ContentType)
	set("MICRO_CALLER", r.Caller)
	sum := 0
	var names []string
	for key, value := range r.Header.All() {
		name, ok := headerName(key)
		sum += len(name) + len(value)
		if !ok || sum > maxHeaderSum || slices.Contains(names, name) {
			continue
		}
		names = append(names, name)
		set(name, value)
		if key == "traceparent" && validTrace(value) {
			set("TRACEPARENT", value)
		}
	}
	return env
}

// headerName gives the variable of a metadata key, and false where the key has none.
func headerName(key string) (string, bool) {
	name := []byte(headerPrefix + key)
	if len(key) == 0 {
		return "", false
	}
	for i := len(headerPrefix); i < len(name); i++ {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z':
			name[i] = c - 'a' + 'A'
		case c == '-':
			name[i] = '_'
		case c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_':
		default:
			return "", false
		}
	}
	return string(name), true
}

// validTrace reports whether v has the form of a traceparent (W3C Trace Context, section 3.2.2).
func validTrace(v string) bool {
	if len(v) != 55 {
		return false
	}
	for i := range len(v) {
		c := v[i]
		if i == 2 || i == 35 || i == 52 {
			if c != '-' {
				return false
			}
		} else if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
