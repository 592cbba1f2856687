package http_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	stdhttp "net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/http"
	registryserver "github.com/cb02dfca/micro/pkg/registry/http/server"
	"github.com/cb02dfca/micro/pkg/registry/registrytest"
)

// childRole is the environment variable that makes the test binary a registry server: its address and its folder.
const childRole = "REGISTRY_TEST_CHILD"

func childMain() int {
	args := strings.Fields(os.Getenv(childRole))
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	s, err := registryserver.New(registryserver.Options{Data: args[1], MaxWrites: 1 << 20})
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { // the end of the tests
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	fmt.Println("ready", l.Addr())
	if err := s.Serve(ctx, l); err != nil {
		fmt.Println("error", err)
		return 3
	}
	return 0
}

// spawned is a registry server in a process of its own.
type spawned struct {
	t       *testing.T
	dir     string
	address string
	wrap    []string // a command before the server's
	cmd     *exec.Cmd
	stdin   io.Closer
	stdout  io.Reader
}

func spawn(t *testing.T, dir string, wrap ...string) *spawned {
	t.Helper()
	s := &spawned{t: t, dir: dir, address: "127.0.0.1:0", wrap: wrap}
	s.start()
	t.Cleanup(func() { s.kill() })
	return s
}

func (s *spawned) start() {
	s.t.Helper()
	argv := append(slices.Clone(s.wrap), os.Args[0], "-test.run=^$")
	s.cmd = exec.Command(argv[0], argv[1:]...)
	s.cmd.Env = append(os.Environ(), childRole+"="+s.address+" "+s.dir)
	s.cmd.Stderr = os.Stderr
	stdin, err := s.cmd.StdinPipe()
	must(s.t, err)
	stdout, err := s.cmd.StdoutPipe()
	must(s.t, err)
	must(s.t, s.cmd.Start())
	s.stdin, s.stdout = stdin, stdout
	var word, rest string
	if _, err := fmt.Fscan(stdout, &word, &rest); err != nil || word != "ready" {
		s.t.Fatalf("the server said %q %q, %v", word, rest, err)
	}
	s.address = rest
}

func (s *spawned) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.stdin.Close()
	_ = s.cmd.Wait()
}

func TestDurableConformance(t *testing.T) {
	t.Parallel()
	registrytest.Run(t, registrytest.Harness{
		New: func(t *testing.T) registrytest.Open {
			s := serve(t, registryserver.Options{MinTTL: time.Millisecond, Data: t.TempDir()})
			return func(*testing.T) registry.Registry { return s.client(http.Options{}) }
		},
		Shared: true, Endpoints: true, Conflicts: true,
	})
}

// TestRestartHasAll: a server on the same folder has the nodes, their owners and their leases, and no other starts on it.
func TestRestartHasAll(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := handler(t, registryserver.Options{Data: dir})
	ask(s, "PUT /v1/nodes/a?ttl=1m", record, "Micro-Lease: "+secretA)
	ask(s, "PUT /v1/nodes/b", record, "Micro-Lease: "+secretB)
	ask(s, "PUT /v1/nodes/c", record, "Micro-Lease: "+secretB)
	ask(s, "DELETE /v1/nodes/c", "", "Micro-Lease: "+secretB)
	if _, err := registryserver.New(registryserver.Options{Data: dir}); !errors.Is(err, registryserver.ErrLocked) {
		t.Errorf("a second server on the folder: %v", err)
	}
	before := s.Health()
	must(t, s.Close())
	s = handler(t, registryserver.Options{Data: dir})
	if h := s.Health(); h.Epoch != before.Epoch || h.Revision <= before.Revision || h.Nodes != 2 || h.Status != "ok" {
		t.Errorf("after the restart %+v, before %+v", h, before)
	}
	for _, step := range []struct {
		line, lease string
		code        int
	}{
		{"PUT /v1/nodes/a", secretB, 409}, {"DELETE /v1/nodes/a", secretB, 409}, {"PUT /v1/nodes/a", secretA, 200},
		{"DELETE /v1/nodes/b", secretB, 204}, {"GET /v1/nodes/b", "", 404}, {"GET /v1/nodes/c", "", 404},
	} {
		body := ""
		if strings.HasPrefix(step.line, "PUT") {
			body = record
		}
		if w := ask(s, step.line, body, "Micro-Lease: "+step.lease); w.Code != step.code {
			t.Errorf("%s: %d %s", step.line, w.Code, w.Body)
		}
	}
}

// TestRenewalsAreNotWritten, and neither are puts that are refused.
func TestRenewalsAreNotWritten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := handler(t, registryserver.Options{Data: dir, MaxWrites: 10_000})
	ask(s, "PUT /v1/nodes/a?ttl=29.9999s", record, "Micro-Lease: "+secretA)
	file := filepath.Join(dir, "registry.db")
	before, err := os.ReadFile(file)
	must(t, err)
	for range 100 {
		if w := ask(s, "PUT /v1/nodes/a?ttl=29.7s", record, "Micro-Lease: "+secretA); w.Code != 200 {
			t.Fatal(w.Code)
		}
		ask(s, "PUT /v1/nodes/a", record, "Micro-Lease: "+secretB)
	}
	if after, err := os.ReadFile(file); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file was written: %v", err)
	}
}

// TestWatchGoesOn: who names the revision that he has is told what came since; and all, where that is not known.
func TestWatchGoesOn(t *testing.T) {
	t.Parallel()
	s := serve(t, registryserver.Options{Grace: -1, Data: t.TempDir()})
	put := func(id, version string) {
		t.Helper()
		body := fmt.Sprintf(`{"service":"greeter","version":"%s","address":"127.0.0.1:1"}`, version)
		r, err := stdhttp.NewRequest("PUT", s.url()+"/v1/nodes/"+id, strings.NewReader(body))
		must(t, err)
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Micro-Lease", secretA)
		rsp, err := stdhttp.DefaultClient.Do(r)
		must(t, err)
		must(t, rsp.Body.Close())
	}
	type line struct {
		Epoch      string
		Revision   uint64
		Nodes, Put []registry.Node
		Gone       []string
	}
	first := func(query string) (l line) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		lines := stream(t, ctx, s.url()+"/v1/watch?changes=true"+query)
		if !lines.Scan() {
			t.Fatal(lines.Err())
		}
		must(t, json.Unmarshal(lines.Bytes(), &l))
		return l
	}
	put("a", "1")
	put("b", "1")
	all := first("")
	at := func(l line) string { return fmt.Sprintf("&epoch=%s&revision=%d", l.Epoch, l.Revision) }
	if l := first(at(all)); l.Nodes != nil || l.Put != nil || l.Revision != all.Revision {
		t.Errorf("with nothing new: %+v", l)
	}
	put("c", "1")
	put("b", "2")
	put("c", "2")
	if l := first(at(all)); l.Nodes != nil || len(l.Put) != 2 || l.Put[0].Version != "2" || l.Put[1].Version != "2" {
		t.Errorf("with b and c new: %+v", l)
	}
	if l := first(at(all) + "&service=other"); l.Nodes != nil || l.Put != nil || l.Revision <= all.Revision {
		t.Errorf("of another service: %+v", l)
	}
	for what, query := range map[string]string{
		"the future": fmt.Sprintf("&epoch=%s&revision=%d", all.Epoch, all.Revision+1000), "long ago": fmt.Sprintf("&epoch=%s&revision=1", all.Epoch),
		"another epoch": fmt.Sprintf("&epoch=%032d&revision=%d", 0, all.Revision),
	} {
		if l := first(query); len(l.Nodes) != 3 {
			t.Errorf("%s: %+v", what, l)
		}
	}
	s.stop()
	s.start()
	if l := first(at(all)); len(l.Nodes) != 3 || l.Epoch != all.Epoch || l.Revision < all.Revision {
		t.Errorf("after a restart: %+v", l)
	}
	for _, query := range []string{"&revision=x&epoch=" + all.Epoch, "&revision=1", "&revision=1&epoch=x"} {
		rsp, err := stdhttp.Get(s.url() + "/v1/watch?changes=true" + query)
		must(t, err)
		must(t, rsp.Body.Close())
		if rsp.StatusCode != 400 {
			t.Errorf("%s: %d", query, rsp.StatusCode)
		}
	}
}

// TestFault_R4_Kills kills a server at random moments of a load, and compares what it has after each start with what it had
// acknowledged. REGISTRY_KILLS is how often, 20 unless set.
func TestFault_R4_Kills(t *testing.T) {
	t.Parallel()
	kills := 20
	if n, err := strconv.Atoi(os.Getenv("REGISTRY_KILLS")); err == nil {
		kills = n
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	s := spawn(t, t.TempDir())
	watching := watchAll(t, "http://"+s.address)
	const writers = 8
	all := make([]*ledger, writers)
	for i := range all {
		all[i] = newLedger(seed+uint64(i), i)
	}
	r := rand.New(rand.NewPCG(seed, 99))
	acked := 0
	for round := range kills {
		var writing sync.WaitGroup
		for _, l := range all {
			writing.Go(func() { l.write(s.address) })
		}
		time.Sleep(time.Duration(r.IntN(60_000)) * time.Microsecond) // the moment is what is random
		s.kill()
		writing.Wait()
		s.start()
		found := list(t, s.address)
		for _, l := range all {
			if problem := l.compare(found); problem != "" {
				t.Fatalf("round %d: %s", round, problem)
			}
			acked += l.acked
			l.acked = 0
		}
	}
	t.Logf("%d kills, %d changes acknowledged", kills, acked)
	if acked < kills {
		t.Errorf("only %d changes were acknowledged", acked)
	}
	watching.settle(t, list(t, s.address))
}

// ledger is one writer and what it knows of its nodes.
type ledger struct {
	r      *rand.Rand
	name   int
	secret string
	may    map[string][]string // what may stand under an id: versions, "" for none. One where the last change was answered.
	acked  int
}

func newLedger(seed uint64, name int) *ledger {
	return &ledger{r: rand.New(rand.NewPCG(seed, 7)), name: name, secret: fmt.Sprintf("%032d", name), may: map[string][]string{}}
}

// write changes nodes until the server is gone.
func (l *ledger) write(address string) {
	client := &stdhttp.Client{Transport: &stdhttp.Transport{}, Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	for i := 0; ; i++ {
		id := fmt.Sprintf("node-%d-%d", l.name, l.r.IntN(40))
		before := l.may[id]
		if before == nil {
			before = []string{""}
		}
		version, method := fmt.Sprintf("v%d", l.r.Uint64()), "PUT"
		if l.r.IntN(4) == 0 {
			version, method = "", "DELETE"
		}
		body := fmt.Sprintf(`{"service":"s%d","version":"%s","address":"127.0.0.1:1"}`, l.name, version)
		req, err := stdhttp.NewRequest(method, "http://"+address+"/v1/nodes/"+id+"?ttl=1h", strings.NewReader(body))
		if err != nil {
			panic(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Micro-Lease", l.secret)
		l.may[id] = append(slices.Clone(before), version) // it may have, or not
		rsp, err := client.Do(req)
		if err != nil {
			return
		}
		_, err = io.Copy(io.Discard, rsp.Body)
		_ = rsp.Body.Close()
		if err != nil || rsp.StatusCode >= 500 {
			return
		}
		if rsp.StatusCode > 299 {
			panic(fmt.Sprint("status ", rsp.StatusCode))
		}
		l.may[id] = []string{version}
		l.acked++
	}
}

// compare holds what a server has against what it may have, and takes it for what it has from now on.
func (l *ledger) compare(found map[string]string) string {
	for id, may := range l.may {
		if !slices.Contains(may, found[id]) {
			return fmt.Sprintf("%s has version %q, and should have one of %q", id, found[id], may)
		}
		l.may[id] = []string{found[id]}
	}
	return ""
}

// list gives the versions of all nodes.
func list(t *testing.T, address string) map[string]string {
	t.Helper()
	rsp, err := stdhttp.Get("http://" + address + "/v1/nodes")
	must(t, err)
	defer rsp.Body.Close()
	var all struct{ Nodes []registry.Node }
	must(t, json.NewDecoder(rsp.Body).Decode(&all))
	out := map[string]string{}
	for _, n := range all.Nodes {
		out[n.ID] = n.Version
	}
	return out
}

// following is a client's watch of all nodes.
type following struct {
	mu  sync.Mutex
	set map[string]string
}

func watchAll(t *testing.T, url string) *following {
	t.Helper()
	r, err := http.New(http.Options{URL: url})
	must(t, err)
	f := &following{}
	var watching sync.WaitGroup
	watching.Go(func() {
		for nodes, err := range r.Watch(context.Background(), "") {
			if err != nil {
				continue
			}
			set := map[string]string{}
			for _, n := range nodes {
				set[n.ID] = n.Version
			}
			f.mu.Lock()
			f.set = set
			f.mu.Unlock()
		}
	})
	t.Cleanup(func() { _ = r.Close(); watching.Wait() })
	return f
}

// settle waits until the watch has a set.
func (f *following) settle(t *testing.T, want map[string]string) {
	t.Helper()
	eventually(t, "a watch has another set than the server", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return fmt.Sprint(f.set) == fmt.Sprint(want)
	})
}

// TestFault_R6_FailedFlush has the kernel refuse a flush: the server acknowledges nothing more, and ends with an error.
func TestFault_R6_FailedFlush(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("needs strace")
	}
	t.Parallel()
	s := spawn(t, t.TempDir(), strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO:when=40+") // of each thread
	l := newLedger(1, 1)
	l.write(s.address) // until it fails
	if l.acked == 0 || l.acked > 1000 {
		t.Errorf("%d changes were acknowledged", l.acked)
	}
	said, err := io.ReadAll(s.stdout)
	must(t, err)
	var exit *exec.ExitError
	if err := s.cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 3 || !strings.Contains(string(said), "the server's disk failed") {
		t.Errorf("the server ended with %v and said %q", err, said)
	}
	s.wrap = nil
	s.address = "127.0.0.1:0"
	s.start()
	if problem := l.compare(list(t, s.address)); problem != "" {
		t.Error(problem)
	}
}
