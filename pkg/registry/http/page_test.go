package http_test

import (
	"regexp"
	"strings"
	"testing"

	registryserver "github.com/cb02dfca/micro/pkg/registry/http/server"
)

// TestPage: a browser is shown a page that holds no node, asks no other server, and runs its one script alone.
func TestPage(t *testing.T) {
	t.Parallel()
	s := handler(t, registryserver.Options{Token: "s3cret"})
	evil := `{"service":"greeter","address":"127.0.0.1:1","metadata":{"x":"<script>alert(1)</script>"}}`
	if w := ask(s, "PUT /v1/nodes/a", evil, "Authorization: Bearer s3cret"); w.Code != 201 {
		t.Fatal(w.Code)
	}
	w := ask(s, "GET /", "", "Accept: text/html,application/xhtml+xml")
	page, policy := w.Body.String(), w.Header().Get("Content-Security-Policy")
	if w.Code != 200 || w.Header().Get("Content-Type") != "text/html; charset=utf-8" || strings.Contains(page, "alert(1)") || strings.Contains(page, "greeter") {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	for _, part := range []string{"default-src 'none'", "connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"} {
		if !strings.Contains(policy, part) {
			t.Errorf("the policy %q lacks %s", policy, part)
		}
	}
	if got := len(regexp.MustCompile(`'sha256-[A-Za-z0-9+/]{43}='`).FindAllString(policy, -1)); got != 2 || strings.Contains(policy, "unsafe") {
		t.Errorf("the policy is %q", policy)
	}
	// What comes from the network becomes text, never markup; and nothing is loaded from elsewhere.
	for _, bad := range []string{"innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function(", "http://", "https://", " src=", "href=", "javascript:", " style=\""} {
		if strings.Contains(page, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	if strings.Count(page, "<script>") != 1 || strings.Count(page, "<style>") != 1 {
		t.Error("the page has not one script and one style")
	}
	w = ask(s, "GET /", "", "Accept: */*")
	if text := w.Body.String(); w.Code != 200 || w.Header().Get("Content-Type") != "text/plain; charset=utf-8" || !strings.Contains(text, "/v1/services") || !strings.Contains(text, "browser") {
		t.Errorf("another client got %d %q", w.Code, text)
	}
}

func TestMetricsAndReadiness(t *testing.T) {
	t.Parallel()
	s := handler(t, registryserver.Options{Token: "s3cret", Data: t.TempDir()})
	ask(s, "PUT /v1/nodes/a", record, "Authorization: Bearer s3cret")
	ask(s, "BREW /coffee", "", "Authorization: Bearer s3cret")
	if w := ask(s, "GET /metrics", ""); w.Code != 401 {
		t.Errorf("without the token: %d", w.Code)
	}
	w := ask(s, "GET /metrics", "", "Authorization: Bearer s3cret")
	for _, line := range []string{
		"micro_registry_nodes 1", "micro_registry_watches 0", "micro_registry_store_commits_total 1", "micro_registry_state_full 0",
		`micro_registry_requests_total{method="PUT",code="201"} 1`, `micro_registry_requests_total{method="other",code="404"} 1`,
		`micro_registry_requests_total{method="GET",code="401"} 1`,
	} {
		if !strings.Contains(w.Body.String(), "\n"+line+"\n") {
			t.Errorf("there is no %q in\n%s", line, w.Body)
		}
	}
	name := regexp.MustCompile(`^(# (HELP|TYPE) micro_registry_[a-z_]+ .+|micro_registry_[a-z_]+(\{[^}]*\})? [0-9.e+]+)$`)
	for line := range strings.Lines(w.Body.String()) {
		if !name.MatchString(strings.TrimSuffix(line, "\n")) {
			t.Errorf("not a line of metrics: %q", line)
		}
	}
	if w := ask(s, "GET /readyz", ""); w.Code != 200 || !strings.Contains(w.Body.String(), `"nodes":1`) {
		t.Errorf("readiness: %d %s", w.Code, w.Body)
	}
}

// TestForceAndNobody: an operator takes away what another owner has, and what is nobody's goes over to its owner.
func TestForceAndNobody(t *testing.T) {
	t.Parallel()
	s := handler(t, registryserver.Options{})
	for _, step := range []struct {
		line, lease string
		code        int
	}{
		{"PUT /v1/nodes/a", secretA, 201},
		{"DELETE /v1/nodes/a", secretB, 409},
		{"DELETE /v1/nodes/a?force=true", "", 204},
		{"GET /v1/nodes/a", "", 404},
		{"PUT /v1/nodes/b?owner=none", secretA, 400},
		{"PUT /v1/nodes/b?owner=none&ttl=61m", "", 400}, // nobody would renew it
		{"PUT /v1/nodes/b?owner=none&ttl=1h", "", 201},
		{"PUT /v1/nodes/b?owner=none&ttl=1h", "", 200},
		{"PUT /v1/nodes/b", secretA, 200},
		{"PUT /v1/nodes/b?owner=none", "", 409},
		{"PUT /v1/nodes/b", secretB, 409},
		{"PUT /v1/nodes/c?owner=none", "", 201},
		{"DELETE /v1/nodes/c", secretB, 204},
		{"GET /v1/nodes/c", "", 404},
	} {
		body := ""
		if strings.HasPrefix(step.line, "PUT") {
			body = record
		}
		if w := ask(s, step.line, body, "Micro-Lease: "+step.lease); w.Code != step.code {
			t.Errorf("%s with %.2s: %d %s, want %d", step.line, step.lease, w.Code, w.Body, step.code)
		}
	}
}
