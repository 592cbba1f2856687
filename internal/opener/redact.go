package opener

import (
	"net/url"
	"strings"
)

// hidden stands for what is not shown, as in [url.URL.Redacted].
const hidden = "xxxxx"

// secrets are parts of the names of parameters whose values are not shown. No driver takes one: who writes it has a secret in it.
var secrets = []string{"pass", "pwd", "token", "secret", "key", "credential", "auth"}

// Redacted gives u without a secret that stands in it: see [RedactedText].
func Redacted(u *url.URL) string { return RedactedText(u.String()) }

// RedactedText gives a URL, or what was meant to be one, without the secrets that stand in it: a password; a user's name alone, which is
// how some systems write a token; the value of a parameter that is called like a secret. It reads the text itself, since it is where a
// password has characters that do not belong in a URL that it does not parse.
func RedactedText(raw string) string {
	rest, query, asked := strings.Cut(raw, "?")
	if _, err := url.Parse(raw); asked && (err != nil || strings.Contains(firstKey(query), "@")) && strings.Contains(query, "@") {
		rest, query, asked = raw, "", false // the question mark is the password's
	}
	if at := strings.LastIndex(rest, "@"); at >= 0 {
		start := 0
		if i := strings.Index(rest[:at], "://"); i >= 0 {
			start = i + len("://")
		} else if i := strings.IndexByte(rest[:at], ':'); i >= 0 {
			start = i + 1
		}
		shown := hidden
		if name, password, found := strings.Cut(rest[start:at], ":"); found && password != "" {
			shown = name + ":" + hidden
		}
		rest = rest[:start] + shown + rest[at:]
	}
	if !asked {
		return rest
	}
	params := strings.Split(query, "&")
	for i, p := range params {
		if key, value, _ := strings.Cut(p, "="); value != "" && secret(key) {
			params[i] = key + "=" + hidden
		}
	}
	return rest + "?" + strings.Join(params, "&")
}

func firstKey(query string) string {
	first, _, _ := strings.Cut(query, "&")
	key, _, _ := strings.Cut(first, "=")
	return key
}

// secret reports whether a parameter of that name may hold a secret: "token" may, and "token-file" does not.
func secret(key string) bool {
	key = strings.ToLower(key)
	if strings.HasSuffix(key, "file") {
		return false
	}
	for _, s := range secrets {
		if strings.Contains(key, s) {
			return true
		}
	}
	return false
}
