package testserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
)

// Browser is a page in a headless Chromium, driven by the DevTools protocol. It is for one goroutine.
type Browser struct {
	ws   *websocket.Conn
	last int
}

// chromium says how the browser is run: as root, in a machine that has neither a screen nor much shared memory.
var chromium = []string{"chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
	"--disable-background-networking", "--disable-extensions", "--disable-sync", "--remote-debugging-port=0"}

// Browse opens url in a browser of its own until the end of the test, which is skipped where there is no Chromium.
func Browse(t testing.TB, url string) *Browser {
	t.Helper()
	if _, err := exec.LookPath("chromium"); err != nil {
		Skip(t, "there is no chromium: apt-get install chromium")
	}
	var tab string
	own := Own(t, Spec{
		Command: func(s *Server) (argv, env []string) {
			_ = os.Remove(filepath.Join(s.Dir, "DevToolsActivePort"))
			argv = append(append(argv, chromium...), "--user-data-dir="+s.Dir, url)
			return argv, []string{"HOME=" + s.Dir, "XDG_CONFIG_HOME=" + s.Dir, "XDG_CACHE_HOME=" + s.Dir}
		},
		Ready: func(s *Server) bool { tab = openTab(s.Dir, url); return tab != "" },
		Taken: "Cannot start http server for devtools",
	})
	t.Cleanup(func() {
		own.Stop("TERM") // its children go with it, a moment later, and write to the end
		for until := time.Now().Add(10 * time.Second); time.Now().Before(until); time.Sleep(pollTime) {
			if os.RemoveAll(own.Dir) != nil {
				continue
			}
			time.Sleep(pollTime)
			if _, err := os.Stat(own.Dir); errors.Is(err, os.ErrNotExist) {
				return
			}
		}
	})
	ws, rsp, err := websocket.Dial(t.Context(), tab, nil)
	check(t, err)
	if rsp.Body != nil {
		_ = rsp.Body.Close()
	}
	ws.SetReadLimit(16 << 20)
	t.Cleanup(func() { _ = ws.CloseNow() })
	b := &Browser{ws: ws}
	for { // the page that is there first gives way to ours
		var state string
		if err := b.eval(t.Context(), "location.href + ' ' + document.readyState", &state); err == nil && strings.HasPrefix(state, url) && strings.HasSuffix(state, " complete") {
			return b
		}
		select {
		case <-t.Context().Done():
			t.Fatalf("the browser does not open %s: %q", url, state)
		case <-time.After(pollTime):
		}
	}
}

// openTab gives the DevTools address of the tab that shows url; empty as long as there is none.
func openTab(dir, url string) string {
	port, err := os.ReadFile(filepath.Join(dir, "DevToolsActivePort"))
	if err != nil {
		return ""
	}
	number, _, _ := strings.Cut(string(port), "\n")
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	rsp, err := client.Get("http://127.0.0.1:" + number + "/json")
	if err != nil {
		return ""
	}
	defer rsp.Body.Close()
	var tabs []struct{ Type, URL, WebSocketDebuggerURL string }
	if json.NewDecoder(rsp.Body).Decode(&tabs) != nil {
		return ""
	}
	for _, tab := range tabs {
		if tab.Type == "page" && strings.HasPrefix(tab.URL, url) {
			return tab.WebSocketDebuggerURL
		}
	}
	return ""
}

// Eval evaluates a JavaScript expression in the page, waits for what it promises, and gives that as text. The test ends where it
// throws.
func (b *Browser) Eval(t testing.TB, expression string) string {
	t.Helper()
	var s string
	ctx, stop := context.WithTimeout(t.Context(), startTime)
	defer stop()
	if err := b.eval(ctx, expression, &s); err != nil {
		t.Fatalf("in the browser: %v", err)
	}
	return s
}

func (b *Browser) eval(ctx context.Context, expression string, to *string) error {
	b.last++
	ask := map[string]any{"id": b.last, "method": "Runtime.evaluate",
		"params": map[string]any{"expression": expression, "awaitPromise": true, "returnByValue": true}}
	if err := wsjson.Write(ctx, b.ws, ask); err != nil {
		return err
	}
	for {
		var said struct {
			ID     int
			Error  *struct{ Message string }
			Result struct {
				Result           struct{ Value any }
				ExceptionDetails *struct {
					Text      string
					Exception struct{ Description string }
				}
			}
		}
		if err := wsjson.Read(ctx, b.ws, &said); err != nil {
			return err
		}
		switch {
		case said.ID != b.last:
			continue
		case said.Error != nil:
			return errors.New(said.Error.Message)
		case said.Result.ExceptionDetails != nil:
			e := said.Result.ExceptionDetails
			return fmt.Errorf("%s %s", e.Text, e.Exception.Description)
		}
		*to, _ = said.Result.Result.Value.(string)
		return nil
	}
}
