package testserver

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// building has one element for each program: it is built once in a process.
var building sync.Map

type built struct {
	once sync.Once
	file string
	err  error
}

// The cache is looked up before a test sets another home, in which it would go with the test.
var (
	cache, errCache = os.UserCacheDir()
	environ         = os.Environ()
)

// Build gives the file of a program that a nested module below servers/ builds: module is its folder's name, target the package.
// What was built stays in the user's cache, and is built anew when the module changes. The first time can take minutes.
func Build(module, target string) (string, error) {
	one, _ := building.LoadOrStore(module+" "+target, new(built))
	b := one.(*built)
	b.once.Do(func() { b.file, b.err = build(module, target) })
	return b.file, b.err
}

func build(module, target string) (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/cb02dfca/micro").Output()
	if err != nil {
		return "", fmt.Errorf("where the servers' modules are: %w", err)
	}
	if errCache != nil {
		return "", errCache
	}
	dir := filepath.Join(cache, "micro-servers")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	file := filepath.Join(dir, module)
	if own, ok := strings.CutPrefix(target, "./"); ok { // one of several programs of the module
		file += "-" + strings.ReplaceAll(own, "/", "-")
	}
	argv := []string{"go", "build", "-C", filepath.Join(strings.TrimSpace(string(out)), "servers", module), "-o", file, target}
	if flock, err := exec.LookPath("flock"); err == nil { // several packages' tests may want it at once
		argv = append([]string{flock, file + ".lock"}, argv...)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(slices.Clone(environ), "GOWORK=off", "CGO_ENABLED=0")
	if said, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s cannot be built: %w: %s", module, err, said)
	}
	return file, nil
}
