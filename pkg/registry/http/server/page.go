package server

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	stdhttp "net/http"
	"strings"
)

// page.html shows the nodes, live. It holds none of them: its script asks for them, with the token that its reader types. What comes from
// the network it shows as text nodes alone, and the policy that it is sent with lets nothing run but that one script.
//
//go:embed page.html
var pageHTML string

// about is what other clients are told at the same address.
const about = `This is a registry server.

  /v1/nodes      the nodes of all services
  /v1/services   the services' names; /v1/services/NAME has the nodes of one
  /v1/watch      what comes and goes, line by line
  /healthz       how the server is; /readyz, /metrics

A browser is shown the nodes at this address.
`

// pagePolicy gives the page's Content-Security-Policy.
func pagePolicy() string {
	return "default-src 'none'; connect-src 'self'; script-src " + inline("script") + "; style-src " + inline("style") +
		"; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}

// inline gives the hash of the page's one element of a kind.
func inline(tag string) string {
	_, rest, _ := strings.Cut(pageHTML, "<"+tag+">")
	text, _, _ := strings.Cut(rest, "</"+tag+">")
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// wantsPage tells a browser, which is shown the page, from other clients, which are told of the paths: of requests of /.
func wantsPage(r *stdhttp.Request) bool {
	return strings.Contains(r.Header.Get("Accept"), "text/html")
}

func (s *Server) page(w stdhttp.ResponseWriter) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", s.policy())
	w.Header().Set("X-Frame-Options", "DENY")
	w.Header().Set("Referrer-Policy", "no-referrer")
	_, _ = w.Write([]byte(pageHTML)) // a client that has gone needs no answer
}
