package main_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// goBlocks gives the Go code of a Markdown page.
func goBlocks(page string) []string {
	var blocks []string
	for _, part := range strings.Split(page, "\n```go\n")[1:] {
		code, _, _ := strings.Cut(part, "\n```")
		blocks = append(blocks, code+"\n")
	}
	return blocks
}

// TestReadme builds the README's service and client as they stand there, in this module, and lets one call the other;
// then it does the same with the program that micro run serves.
func TestReadme(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, form := range []string{
		"\n    go run . run builtin:greeter\n", "\n    scripts/test\n",
		"\n    micro run\n", "\n    micro list services\n", "\n    micro call greeter Say.Hello '{\"name\":\"x\"}'\n", "\n    micro publish topic\n",
		"\n    micro run --name words --endpoint Words.Count -- wc -w\n", "\n    $ micro call words Words.Count '\"one two three\"'\n    3\n",
		"\n    $ micro call upper Text.Upper text=hello -q .text\n    HELLO\n",
	} {
		if !bytes.Contains(page, []byte(form)) {
			t.Errorf("README.md lacks the line %q", strings.TrimSpace(form))
		}
	}
	blocks := goBlocks(string(page))
	if len(blocks) != 2 {
		t.Fatalf("%d Go programs in README.md, want a service and its client", len(blocks))
	}
	bin := buildBlocks(t, map[string]string{"service": blocks[0], "client": blocks[1]})
	env := append(os.Environ(), "XDG_RUNTIME_DIR="+privateDir(t), "MICRO_REGISTRY=local") // of the command; the programs do not read it

	serveReadme(t, env, "upper", filepath.Join(bin, "service"))
	if out := output(t, env, filepath.Join(bin, "client")); out != "HELLO\n" {
		t.Errorf("the client prints %q", out)
	}
	if out := output(t, env, filepath.Join(bin, "micro"), "call", "upper", "Text.Upper", "text=hello", "-q", ".text"); out != "HELLO\n" {
		t.Errorf("micro call prints %q", out)
	}
	if _, err := exec.LookPath("wc"); err != nil {
		return
	}
	serveReadme(t, env, "words", filepath.Join(bin, "micro"), "run", "--name", "words", "--endpoint", "Words.Count", "--", "wc", "-w")
	if out := output(t, env, filepath.Join(bin, "micro"), "call", "words", "Words.Count", `"one two three"`); out != "3\n" {
		t.Errorf("micro call prints %q", out)
	}
}

// TestGuide builds the guide's program and its package, and runs its test, each as it stands there.
func TestGuide(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("docs", "guide.md"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, code := range goBlocks(string(page)) {
		if name, whole := strings.CutPrefix(strings.SplitN(code, "\n", 2)[0], "package "); whole {
			found[name] = code
		}
	}
	if len(found) != 3 || found["main"] == "" || found["stock"] == "" || found["shop_test"] == "" {
		t.Fatal("docs/guide.md has not the one program, the one package and the one test that are expected")
	}
	buildBlocks(t, map[string]string{"guide": found["main"], "stock": found["stock"]})
	dir := t.TempDir()
	overlay := writeOverlay(t, dir, map[string]string{"guide/shop_test.go": found["shop_test"]})
	out, err := exec.CommandContext(t.Context(), "go", "test", "-c", "-vet=off", "-overlay", overlay, "-o", filepath.Join(dir, "guide.exe"), "./readme/guide").CombinedOutput()
	if err != nil {
		t.Fatalf("go test -c: %v\n%s", err, out)
	}
	if out, err := exec.CommandContext(t.Context(), filepath.Join(dir, "guide.exe")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// buildBlocks builds programs inside this module, without writing to its folder, and the micro binary beside them. It
// gives the folder of the binaries.
func buildBlocks(t *testing.T, programs map[string]string) string {
	t.Helper()
	dir, files := t.TempDir(), map[string]string{}
	args := []string{"./"}
	for _, name := range slices.Sorted(maps.Keys(programs)) {
		files[name+"/main.go"] = programs[name]
		args = append(args, "./readme/"+name)
	}
	args = append([]string{"build", "-overlay", writeOverlay(t, dir, files), "-o", dir + string(filepath.Separator)}, args...)
	if out, err := exec.CommandContext(t.Context(), "go", args...).CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return dir
}

// writeOverlay writes files to dir, and a list that makes the go command see them below the folder readme, which is not
// there. It gives the list's path.
func writeOverlay(t *testing.T, dir string, files map[string]string) string {
	t.Helper()
	root, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	replace := map[string]string{}
	for name, text := range files {
		path := filepath.Join(dir, strings.ReplaceAll(name, "/", "-"))
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(root, "readme", filepath.FromSlash(name))] = path
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(path, list, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// privateDir is a folder for the local registry. Its path is short, as that of a runtime folder is.
func privateDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "readme")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// serveReadme starts a service and waits until it is listed; it ends with the test.
func serveReadme(t *testing.T, env []string, service, path string, args ...string) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("the local registry's folder cannot be set apart there")
	}
	var said bytes.Buffer
	cmd := exec.Command(path, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v\n%s", service, err, said.String())
		}
	})
	micro := filepath.Join(filepath.Dir(path), "micro")
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		cmd := exec.CommandContext(t.Context(), micro, "list", "nodes", service, "-o", "name")
		cmd.Env = env
		if out, err := cmd.Output(); err == nil && len(out) > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is not listed", service)
		}
	}
}

func output(t *testing.T, env []string, path string, args ...string) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env, cmd.Stderr = env, &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(path), strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

// TestArchitecturePage: the table of docs/architecture.md is the one that TestImports holds the code to.
func TestArchitecturePage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("docs", "architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, begins := strings.Cut(string(page), "<!-- imports: begin -->\n```\n")
	table, _, ends := strings.Cut(rest, "```\n<!-- imports: end -->")
	if !begins || !ends {
		t.Fatal("docs/architecture.md has no table of imports")
	}
	got := map[string][]string{}
	for line := range strings.Lines(table) {
		if f := strings.Fields(line); len(f) > 0 {
			got[strings.TrimPrefix(f[0], "main")] = slices.DeleteFunc(f[1:], func(s string) bool { return s == "-" })
		}
	}
	for name, want := range allowed {
		if !slices.Equal(got[name], want) {
			t.Errorf("the page lets %q import %q, architecture_test.go %q", name, got[name], want)
		}
		delete(got, name)
	}
	for name := range got {
		t.Errorf("the page has %q, which architecture_test.go has not", name)
	}
}

var (
	link   = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	fenced = regexp.MustCompile("(?ms)^```.*?^```$")
)

// TestLinks: what a page of the repository points to is there, headings of pages included.
func TestLinks(t *testing.T) {
	t.Parallel()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && d.Name() == ".git" {
			return filepath.SkipDir
		}
		if d.IsDir() || filepath.Ext(path) != ".md" {
			return nil
		}
		page, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range link.FindAllStringSubmatch(fenced.ReplaceAllString(string(page), ""), -1) {
			target, heading, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			to := path
			if target != "" {
				to = filepath.Join(filepath.Dir(path), filepath.FromSlash(target))
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s points to %s, which is not there", path, m[1])
			} else if heading != "" && !hasHeading(t, to, heading) {
				t.Errorf("%s points to %s, which has no such heading", path, m[1])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// hasHeading looks for a heading by its anchor: lower case, a hyphen for a space, punctuation left out.
func hasHeading(t *testing.T, path, anchor string) bool {
	t.Helper()
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(page)) {
		if !strings.HasPrefix(line, "#") {
			continue
		}
		got := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r > 127:
				return r
			}
			return -1
		}, strings.ToLower(strings.TrimSpace(strings.TrimLeft(line, "#"))))
		if got == anchor {
			return true
		}
	}
	return false
}
