package interop_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/cb02dfca/micro/internal/testserver"
	"github.com/cb02dfca/micro/pkg/micro"
	"github.com/cb02dfca/micro/pkg/registry/mdns"
)

// roleVar makes the test's binary a service of ours of its own, named greeter, at the address that the variable has.
const roleVar = "INTEROP_SERVE"

// play is that service. It says when it is up, and leaves when its input ends.
func play(address string) error {
	r, err := mdns.New(mdns.Options{})
	if err != nil {
		return err
	}
	defer r.Close()
	s, err := micro.New("greeter", micro.Registry(r), micro.Address(address), micro.Signals(false),
		micro.AfterStart(func(context.Context) error { fmt.Println("up"); return nil }))
	if err != nil {
		return err
	}
	err = micro.Handle(s, "Say.Hello", func(context.Context, *Request) (*Response, error) {
		return &Response{Seq: int64(os.Getpid())}, nil
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); cancel() }()
	return s.Run(ctx)
}

// process runs play as a process of its own, which ends with the test. end kills it, or ends it as it should.
func process(t *testing.T, address string) (end func(kill bool)) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleVar+"="+address)
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	ended := false
	end = func(kill bool) {
		if ended {
			return
		}
		ended = true
		if kill {
			_ = cmd.Process.Kill()
		}
		_ = in.Close()
		_ = cmd.Wait()
	}
	t.Cleanup(func() { end(false) })
	up := make([]byte, 3)
	if _, err := io.ReadFull(out, up); err != nil {
		t.Fatalf("our service does not start: %v", err)
	}
	return end
}

// called calls by a client of go-micro, and gives who answered.
func called(p *testserver.Peer) (pid int64, err error) {
	var a answer
	if err := json.Unmarshal([]byte(p.Do(`call greeter Say.Hello {"name":"x"}`)), &a); err != nil {
		return 0, err
	}
	if a.Error != nil {
		return 0, fmt.Errorf("%s", a.Error)
	}
	var rsp Response
	err = json.Unmarshal(a.Reply, &rsp)
	return rsp.Seq, err
}

// eachHTTP runs a test with a client of each version that calls by HTTP.
func eachHTTP(t *testing.T, do func(t *testing.T, client *testserver.Peer)) {
	for _, p := range peers {
		if p.protocol == "grpc" {
			continue
		}
		t.Run(p.name, func(t *testing.T) {
			client := testserver.GoMicroOf(t, p.version, "client", "-protocol", p.protocol, "-broker-address", "127.0.0.1:0")
			do(t, client)
		})
	}
}

// TestRollingRestart: go-micro's clients keep what they know of a service for a minute. What leaves says so, and they hear it, so that
// none of their calls fails while our nodes are replaced one after the other.
func TestRollingRestart(t *testing.T) {
	if !alone(t, "v1.18.0", "v2.9.1", "v4.11.0", "v5.3.0", "v5.30.0") {
		return
	}
	eachHTTP(t, func(t *testing.T, client *testserver.Peer) {
		end := process(t, "127.0.0.1:0")
		first, err := called(client)
		must(t, err)
		time.Sleep(time.Second) // its client begins to watch up to 100 ms after its first call, and what comes in between it does not learn
		last := first
		for range 3 {
			next := process(t, "127.0.0.1:0")
			ended := make(chan struct{})
			go func() { defer close(ended); end(false) }()
			calls := 0
			for done := false; !done; calls++ {
				select {
				case <-ended:
					done = true
				default:
				}
				if last, err = called(client); err != nil {
					t.Fatalf("call %d of a restart: %v", calls, err)
				}
			}
			t.Logf("%d calls while a node was replaced", calls)
			end = next
		}
		if last == first {
			t.Error("the first node still answers")
		}
	})
}

// TestKilled: our service is killed and another takes its address. Connections that go-micro's pool has are dead; each call that takes one
// fails, since go-micro tries none again that was lost, and then all is well.
func TestKilled(t *testing.T) {
	if !alone(t, "v1.18.0", "v2.9.1", "v4.11.0", "v5.3.0", "v5.30.0") {
		return
	}
	eachHTTP(t, func(t *testing.T, client *testserver.Peer) {
		const address = "127.0.0.1:18700"
		end := process(t, address)
		first, err := called(client)
		must(t, err)
		end(true)
		if _, err := called(client); err == nil || strings.Contains(err.Error(), "408") {
			t.Errorf("a call to the dead service gave %v", err)
		}
		process(t, address)
		failed := 0
		for {
			last, err := called(client)
			if err == nil {
				if last == first {
					t.Error("the dead node answers")
				}
				break
			}
			if failed++; failed > 3 {
				t.Fatalf("call %d after it was replaced: %v", failed, err)
			}
		}
		for range 20 {
			if _, err := called(client); err != nil {
				t.Fatal(err)
			}
		}
	})
}
