package testserver

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// packages is the folder with what servers/npm names.
var packages = sync.OnceValues(installPackages)

// Node gives the command line of a program of servers/npm, which Node.js runs with the packages of others that are named there. The
// packages stay in the user's cache. The test is skipped where there is no Node.js.
func Node(t testing.TB, program string, args ...string) []string {
	t.Helper()
	for _, command := range []string{"node", "npm"} {
		if _, err := exec.LookPath(command); err != nil {
			Skip(t, "there is no "+command+": apt-get install nodejs npm")
		}
	}
	dir, err := packages()
	check(t, err)
	return append([]string{"node", filepath.Join(dir, program)}, args...)
}

// JSONRPC starts a JSON-RPC server of jayson's until the end of the test, and gives its address. It has the methods subtract, of minuend
// and subtrahend, and Say.Hello, of name, which fails for "bad".
func JSONRPC(t testing.TB) string {
	t.Helper()
	argv := Node(t, "serve.mjs")
	cmd := exec.Command(argv[0], argv[1:]...) // it ends with its input
	in, err := cmd.StdinPipe()
	check(t, err)
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	t.Cleanup(func() {
		if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
			t.Errorf("jayson's server: %v", err)
		}
	})
	port, err := bufio.NewReader(out).ReadString('\n')
	check(t, err)
	return "127.0.0.1:" + strings.TrimSpace(port)
}

// installPackages copies servers/npm to the cache, and has npm install there what the lock file names, where that is not there already.
func installPackages() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/cb02dfca/micro").Output()
	if err != nil {
		return "", fmt.Errorf("where the servers' modules are: %w", err)
	}
	if errCache != nil {
		return "", errCache
	}
	dir := filepath.Join(cache, "micro-servers", "npm")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	argv := []string{"sh", filepath.Join(strings.TrimSpace(string(out)), "servers", "npm", "install"), dir}
	if flock, err := exec.LookPath("flock"); err == nil { // several packages' tests may want it at once
		argv = append([]string{flock, dir + ".lock"}, argv...)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = slices.Clone(environ)
	if said, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("servers/npm cannot be installed: %w: %s", err, said)
	}
	return dir, nil
}
