// Command registryserver measures a registry server on disk, which runs in a process of its own, with as many nodes as -nodes says. Its load
// comes from the same machine, so that the figures are upper bounds.
//
//	go run ./internal/measure/registryserver [-nodes 10000] [-watches 1000] [-conns 1000] [-renewing 30s] [-fleet 1000] [-only PART]
package main

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	registryserver "github.com/cb02dfca/micro/pkg/registry/http/server"
)

var (
	count    = flag.Int("nodes", 10_000, "services with one node each")
	watches  = flag.Int("watches", 1000, "watches of one service")
	conns    = flag.Int("conns", 1000, "connections of the herd")
	renewing = flag.Duration("renewing", 30*time.Second, "how long renewals are measured")
	memory   = flag.Bool("memory", false, "a server in memory")
	fleet    = flag.Int("fleet", 1000, "connections of the renewals, beside those over one")
	only     = flag.String("only", "", "measure this alone, of herd, reads, watches, renewals, deaf, restarts")
	serving  = flag.String("serve", "", "be the server: its folder")
	bare     = flag.Bool("bare", false, "with -serve: be a net/http server that does nothing, to compare with")
)

func main() {
	flag.Parse()
	err := error(nil)
	if *serving != "" {
		err = serve(*serving)
	} else {
		err = measure()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func serve(dir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	run := nothing
	if !*bare {
		o := registryserver.Options{Data: dir, MaxWatches: 2 * *watches, MaxConns: 30_000}
		if *memory {
			o.Data = ""
		}
		s, err := registryserver.New(o)
		if err != nil {
			return err
		}
		run = s.Serve
	}
	fmt.Println(l.Addr())
	go func() {
		asked := bufio.NewScanner(os.Stdin)
		for asked.Scan() {
			fmt.Println(int64(used()))
		}
		stop() // the measuring process is gone
	}()
	return run(ctx, l)
}

// nothing serves answers that look as a registry's to a renewal, and does nothing for them.
func nothing(ctx context.Context, l net.Listener) error {
	s := &http.Server{ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"epoch":"00000000000000000000000000000000","revision":68719476736,"ttl":"5m0s"}`+"\n")
		})}
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	return s.Serve(l)
}

// child is a running server.
type child struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Reader
	url   string
}

func start(dir string, more ...string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.Command(self, append(more, "-serve", dir, "-watches", strconv.Itoa(*watches), fmt.Sprintf("-memory=%t", *memory))...)}
	c.cmd.Stderr = os.Stderr
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	c.out = bufio.NewReader(out)
	line, err := c.out.ReadString('\n')
	c.url = "http://" + strings.TrimSpace(line)
	return c, err
}

func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	_ = c.stdin.Close()
	_ = c.cmd.Wait()
}

// peak is the most memory that the server has had, in MiB.
func (c *child) peak() int {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, _ := strconv.Atoi(strings.Fields(rest)[0])
			return kib >> 10
		}
	}
	return 0
}

// cpu is the processor time of the server so far, of which it tells itself.
func (c *child) cpu() time.Duration {
	if _, err := io.WriteString(c.stdin, "cpu\n"); err != nil {
		return 0
	}
	line, _ := c.out.ReadString('\n')
	ns, _ := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	return time.Duration(ns)
}

// put registers or renews a node, as its service would.
func put(c *http.Client, url string, i int, version string) error {
	body := fmt.Sprintf(`{"id":"svc-%05d-7f3a91c2","service":"svc-%05d","version":"%s","address":"10.0.%d.%d:8080","metadata":{"protocol":"mucp","transport":"http","upgrade":"micro",`+
		`"started":"2026-11-23T07:27:47Z","zone":"a"},"endpoints":[{"name":"Say.Hello"},{"name":"Say.Bye"},{"name":"Debug.Health"}]}`, i, i, version, i>>8, i&255)
	req, err := http.NewRequest(http.MethodPut, fmt.Sprintf("%s/v1/nodes/svc-%05d-7f3a91c2?ttl=5m", url, i), strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Micro-Lease", fmt.Sprintf("%032x", i))
	rsp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer rsp.Body.Close()
	if _, err := io.Copy(io.Discard, rsp.Body); err != nil || rsp.StatusCode > 299 {
		return fmt.Errorf("put: status %d, %w", rsp.StatusCode, err)
	}
	return nil
}

func get(c *http.Client, url string) (took time.Duration, size int64, err error) {
	begun := time.Now()
	rsp, err := c.Get(url)
	if err != nil {
		return 0, 0, err
	}
	defer rsp.Body.Close()
	size, err = io.Copy(io.Discard, rsp.Body)
	if err == nil && rsp.StatusCode != http.StatusOK {
		err = fmt.Errorf("get %s: status %d", url, rsp.StatusCode)
	}
	return time.Since(begun), size, err
}

// herd registers all nodes at once, over so many connections.
func herd(url string, n int) (time.Duration, error) {
	c := client(n)
	defer c.CloseIdleConnections()
	begun := time.Now()
	var next atomic.Int64
	var failed atomic.Value
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < *count; i = int(next.Add(1)) - 1 {
				if err := put(c, url, i, "1.0.0"); err != nil {
					failed.Store(err)
					return
				}
			}
		})
	}
	all.Wait()
	err, _ := failed.Load().(error)
	return time.Since(begun), err
}

func client(conns int) *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: conns, MaxConnsPerHost: conns, DisableCompression: true}}
}

// figures are times of one kind.
type figures []time.Duration

func (f figures) String() string {
	if len(f) == 0 {
		return "none"
	}
	slices.Sort(f)
	at := func(q float64) time.Duration {
		return f[min(len(f)-1, int(q*float64(len(f))))].Round(10 * time.Microsecond)
	}
	return fmt.Sprintf("p50 %v, p99 %v, max %v of %d", at(0.5), at(0.99), f[len(f)-1].Round(10*time.Microsecond), len(f))
}

func measure() error {
	dir, err := os.MkdirTemp("", "registryserver")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s, err := start(filepath.Join(dir, "a"))
	if err != nil {
		return err
	}
	defer func() { s.kill() }()
	if *only != "" && *only != "herd" {
		if _, err := herd(s.url, *conns); err != nil {
			return err
		}
	}
	for _, part := range []struct {
		name    string
		measure func(*child) error
	}{{"herd", measureHerd}, {"reads", measureReads}, {"watches", measureWatches}, {"renewals", measureRenewals}, {"deaf", measureDeaf}} {
		if *only != "" && *only != part.name {
			continue
		}
		if err := part.measure(s); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	fmt.Printf("memory of the server at most: %d MiB\n", s.peak())
	if *memory || *only != "" && *only != "restarts" {
		return nil
	}
	var restarts figures
	for range 5 {
		s.kill()
		begun := time.Now()
		if s, err = start(filepath.Join(dir, "a")); err != nil {
			return err
		}
		_, size, err := get(client(1), s.url+"/v1/nodes")
		if err != nil || size < int64(*count)*100 {
			return fmt.Errorf("after a restart %d bytes, %w", size, err)
		}
		restarts = append(restarts, time.Since(begun))
	}
	fmt.Printf("kill -9 to the whole list again: %v\n", restarts)
	return nil
}

func measureHerd(s *child) error {
	stop, c := make(chan struct{}), client(1)
	var lists figures
	var listing sync.WaitGroup
	listing.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
			if took, _, err := get(c, s.url+"/v1/nodes"); err == nil {
				lists = append(lists, took)
			}
		}
	})
	before := s.cpu()
	took, err := herd(s.url, *conns)
	close(stop)
	listing.Wait()
	fmt.Printf("%d nodes register at once over %d connections: %v, the server's CPU %v, its memory at most %d MiB; whole lists meanwhile %v\n",
		*count, *conns, took.Round(time.Millisecond), s.cpu()-before, s.peak(), lists)
	return err
}

func measureReads(s *child) error {
	c := client(4)
	for _, what := range []struct {
		name, path string
		n          int
	}{{"names", "/v1/services", 300}, {"whole list", "/v1/nodes", 100}, {"get", "/v1/services/svc-00042", 2000}} {
		for _, changing := range []bool{false, true} {
			var times figures
			var size int64
			for i := range what.n {
				if changing { // so that nothing that was made before holds
					if err := put(c, s.url, i%*count, fmt.Sprint(what.name, i)); err != nil {
						return err
					}
				}
				took, n, err := get(c, s.url+what.path)
				if err != nil {
					return err
				}
				times, size = append(times, took), n
			}
			fmt.Printf("%s (%d bytes, a change before each: %t): %v\n", what.name, size, changing, times)
		}
	}
	return nil
}

// measureWatches has many watch one service, whose version is when it was put.
func measureWatches(s *child) error {
	ctx, stop := context.WithCancel(context.Background())
	c := client(*watches)
	var mu sync.Mutex
	var times figures
	var watching, ready sync.WaitGroup
	ready.Add(*watches)
	for range *watches {
		watching.Go(func() {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/v1/watch?changes=true&service=svc-00042", nil)
			if err != nil {
				panic(err)
			}
			rsp, err := c.Do(req)
			if err != nil {
				panic(err)
			}
			defer rsp.Body.Close()
			lines := bufio.NewScanner(rsp.Body)
			lines.Scan()
			ready.Done()
			for lines.Scan() {
				_, rest, _ := bytes.Cut(lines.Bytes(), []byte(`"version":"t`))
				text, _, _ := bytes.Cut(rest, []byte(`"`))
				if sent, err := strconv.ParseInt(string(text), 10, 64); err == nil {
					took := time.Duration(time.Now().UnixNano() - sent)
					mu.Lock()
					times = append(times, took)
					mu.Unlock()
				}
			}
		})
	}
	ready.Wait()
	writer := client(1)
	for range 50 {
		if err := put(writer, s.url, 42, fmt.Sprint("t", time.Now().UnixNano())); err != nil {
			stop()
			return err
		}
		time.Sleep(100 * time.Millisecond) // events apart from each other
	}
	stop()
	watching.Wait()
	fmt.Printf("from a put's beginning to a client's line, %d watches: %v\n", *watches, times)
	return nil
}

// measureDeaf has many watch who do not read, in each way to watch, while nodes change, one by one and hundreds at once.
func measureDeaf(s *child) error {
	writer := client(16)
	for _, query := range []string{"", "changes=true", "service=svc-00042", "changes=true&service=svc-00042"} {
		var all []net.Conn
		for range *watches * 9 / 10 {
			c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
			if err != nil {
				return err
			}
			all = append(all, c)
			if _, err := fmt.Fprintf(c, "GET /v1/watch?%s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", query); err != nil {
				return err
			}
		}
		before := s.peak()
		for i := range 20 {
			at := time.Now().UnixNano()
			if err := put(writer, s.url, 42, fmt.Sprint("t", at)); err != nil {
				return err
			}
			for j := range 20 * (i % 10) {
				if err := put(writer, s.url, 50*j, fmt.Sprint("t", at)); err != nil {
					return err
				}
			}
			time.Sleep(200 * time.Millisecond)
		}
		took, _, err := get(writer, s.url+"/v1/nodes")
		if err != nil {
			return err
		}
		fmt.Printf("%d watches (%s) that do not read, 20 changes of 1 to 180 nodes: the server's memory at most %d MiB, before %d; a list then takes %v\n", len(all), query, s.peak(), before, took)
		for _, c := range all {
			_ = c.Close()
		}
	}
	return nil
}

// measureRenewals has all nodes be renewed at the pace of one renewal each 30 s, over one connection and over many, and does the same to a
// server that does nothing.
func measureRenewals(s *child) error {
	if _, err := herd(s.url, 64); err != nil { // all as they will be renewed
		return err
	}
	none, err := start("none", "-bare")
	if err != nil {
		return err
	}
	defer none.kill()
	for _, over := range []int{1, *fleet} {
		for _, to := range []struct {
			name string
			*child
		}{{"the server", s}, {"a net/http server that does nothing", none}} {
			if err := renew(to.child, to.name, over); err != nil {
				return err
			}
		}
	}
	return nil
}

// renew measures renewals of one server.
func renew(s *child, name string, over int) error {
	var all []*http.Client
	for range over {
		all = append(all, client(1))
	}
	defer func() {
		for _, c := range all {
			c.CloseIdleConnections()
		}
	}()
	each := func(i int) error { return put(all[i%over], s.url, i%*count, "1.0.0") }
	for i := range over { // connected
		if err := each(i); err != nil {
			return err
		}
	}
	gap := 30 * time.Second / time.Duration(*count)
	before, begun, n := s.cpu(), time.Now(), 0
	for ; time.Since(begun) < *renewing; n++ {
		if err := each(n); err != nil {
			return err
		}
		time.Sleep(time.Until(begun.Add(time.Duration(n+1) * gap)))
	}
	took, cpu := time.Since(begun), s.cpu()-before
	fmt.Printf("%d renewals in %v over %d connections, as of %d nodes every 30s, by %s: %v of processor time each, %.1f %% of a core\n",
		n, took.Round(time.Millisecond), over, *count, name, (cpu / time.Duration(n)).Round(100*time.Nanosecond), 100*float64(cpu)/float64(took))
	return nil
}
