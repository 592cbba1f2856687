package http_test

import (
	"fmt"
	stdhttp "net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	registryserver "github.com/cb02dfca/micro/pkg/registry/http/server"
)

// TestFault_R5_ServerOnFullDisk: reads and renewals go on, and new nodes are refused until there is room again.
func TestFault_R5_ServerOnFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, for a small file system")
	}
	t.Parallel()
	dir := t.TempDir()
	must(t, syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"))
	defer func() { must(t, syscall.Unmount(dir, syscall.MNT_DETACH)) }()
	s := handler(t, registryserver.Options{Data: filepath.Join(dir, "data"), MaxWrites: 1 << 20})
	ballast := filepath.Join(dir, "ballast")
	must(t, os.WriteFile(ballast, make([]byte, 700<<10), 0o600))
	put := func(id string) (code int, retry string) {
		body := fmt.Sprintf(`{"service":"greeter","address":"127.0.0.1:1","metadata":{"x":"%s"}}`, strings.Repeat("x", 4000))
		w := ask(s, "PUT /v1/nodes/"+id, body, "Micro-Lease: "+secretA)
		return w.Code, w.Header().Get("Retry-After")
	}
	if code, _ := put("first"); code != 201 {
		t.Fatal(code)
	}
	refused := false
	for i := 0; i < 200 && !refused; i++ {
		code, retry := put(fmt.Sprint("node-", i))
		refused = code == 429 && retry != ""
	}
	if code, _ := put("first"); !refused || code != 200 {
		t.Errorf("refused %t, a renewal gave %d", refused, code)
	}
	if h := s.Health(); h.Status != "full" {
		t.Errorf("health %+v", h)
	}
	if w := ask(s, "GET /v1/nodes/first", ""); w.Code != 200 {
		t.Errorf("a read gave %d", w.Code)
	}
	must(t, os.Remove(ballast))
	eventually(t, "the server does not see that there is room", func() bool { return s.Health().Status != "full" })
	if code, _ := put("last"); code != 201 {
		t.Errorf("with room: %d", code)
	}
}

// TestFault_P3_StoppedServer: a server that was stopped for longer than a lease gives its owner the lease's time again.
func TestFault_P3_StoppedServer(t *testing.T) {
	t.Parallel()
	s := spawn(t, t.TempDir())
	req, err := stdhttp.NewRequest("PUT", "http://"+s.address+"/v1/nodes/a?ttl=1s", strings.NewReader(record))
	must(t, err)
	req.Header.Set("Content-Type", "application/json")
	rsp, err := stdhttp.DefaultClient.Do(req)
	must(t, err)
	must(t, rsp.Body.Close())
	must(t, s.cmd.Process.Signal(syscall.SIGSTOP))
	time.Sleep(2500 * time.Millisecond) // it cannot tell when it has missed enough
	must(t, s.cmd.Process.Signal(syscall.SIGCONT))
	if len(list(t, s.address)) != 1 {
		t.Error("the node is gone")
	}
	eventually(t, "the node does not lapse", func() bool { return len(list(t, s.address)) == 0 })
}
