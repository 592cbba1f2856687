package http_test

import (
	"context"
	"net"
	stdhttp "net/http"
	"strings"
	"testing"

	"github.com/cb02dfca/micro/pkg/registry"
	registryserver "github.com/cb02dfca/micro/pkg/registry/http/server"
	"github.com/cb02dfca/micro/pkg/registry/memory"
)

func TestBridge(t *testing.T) {
	t.Parallel()
	heard := memory.New()
	defer heard.Close()
	put := func(id, address string) {
		t.Helper()
		must(t, heard.Register(t.Context(), registry.Node{ID: id, Service: "heard", Address: address}, 0))
	}
	put("lan", "192.0.2.7:80")
	put("loop", "127.0.0.1:80")
	put("both", "192.0.2.8:80")
	dir := t.TempDir()
	s := handler(t, registryserver.Options{Bridge: heard, Token: "secret", Data: dir})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan error, 1)
	go func() { got <- s.Serve(ctx, open{l}) }()
	has := func(want string) func() bool {
		return func() bool { return idsOf(t, s) == want }
	}
	eventually(t, "the nodes of the network do not show", has("both lan"))
	body := `{"service":"heard","address":"192.0.2.9:80"}`
	if w := ask(s, "PUT /v1/nodes/both", body, "Authorization: Bearer secret", "Micro-Lease: "+secretA); w.Code > 201 {
		t.Errorf("its owner registers here as well: %d %s", w.Code, w.Body)
	}
	must(t, heard.Deregister(t.Context(), registry.Node{ID: "lan", Service: "heard"}))
	must(t, heard.Deregister(t.Context(), registry.Node{ID: "both", Service: "heard"}))
	put("late", "192.0.2.10:80")
	eventually(t, "what went still shows, or what came does not", has("both late"))
	cancel()
	must(t, <-got)
	s = handler(t, registryserver.Options{Data: dir, Token: "secret"})
	if got := idsOf(t, s); got != "both" {
		t.Errorf("the file has %s", got)
	}
}

// idsOf gives the ids that a server with the token has.
func idsOf(t *testing.T, s stdhttp.Handler) string {
	t.Helper()
	var ids []string
	for _, part := range strings.Split(ask(s, "GET /v1/nodes", "", "Authorization: Bearer secret").Body.String(), `{"id":"`)[1:] {
		id, _, _ := strings.Cut(part, `"`)
		ids = append(ids, id)
	}
	return strings.Join(ids, " ")
}
