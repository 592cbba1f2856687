package hostcheck_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/cb02dfca/micro/internal/hostcheck"
	"github.com/cb02dfca/micro/pkg/status"
)

func TestChecks(t *testing.T) {
	t.Parallel()
	const local, lan = "127.0.0.1:8080", "192.0.2.7:8080"
	for _, test := range []struct {
		name, listen, host string
		headers            [][2]string
		want               int
	}{
		{"localhost", local, "localhost:8080", nil, 200},
		{"other port", local, "LOCALHOST:1", nil, 200},
		{"no port", local, "localhost", nil, 200},
		{"root dot", local, "localhost.:8080", nil, 200},
		{"address", local, "127.0.0.1:8080", nil, 200},
		{"other loopback address", local, "127.1.2.3", nil, 200},
		{"IPv6", local, "[::1]:8080", nil, 200},
		{"IPv6, no port", local, "[::1]", nil, 200},
		{"mapped IPv4", local, "[::ffff:127.0.0.1]:8080", nil, 200},
		{"listens on IPv6", "[::1]:8080", "evil.example", nil, 421},
		{"allowed", local, "dev.box:1", nil, 200},
		{"foreign", local, "evil.example", nil, 421},
		{"foreign port", local, "evil.example:8080", nil, 421},
		{"looks local", local, "localhost.evil.example", nil, 421},
		{"ends like allowed", local, "evil-dev.box", nil, 421},
		{"address of the LAN", local, "192.0.2.7", nil, 421},
		{"any address", local, "0.0.0.0:8080", nil, 421},
		{"short address", local, "127.1", nil, 421},
		{"number", local, "2130706433", nil, 421},
		{"empty", local, "", nil, 421},
		{"local origin", local, "localhost", [][2]string{{"Origin", "http://127.0.0.1:3000"}}, 200},
		{"foreign origin", local, "localhost", [][2]string{{"Origin", "https://evil.example"}}, 403},
		{"null origin", local, "localhost", [][2]string{{"Origin", "null"}}, 403},
		{"empty origin", local, "localhost", [][2]string{{"Origin", ""}}, 403},
		{"file", local, "localhost", [][2]string{{"Origin", "file://"}}, 403},
		{"origin with a user", local, "localhost", [][2]string{{"Origin", "http://localhost@evil.example"}}, 403},
		{"two origins", local, "localhost", [][2]string{{"Origin", "http://localhost"}, {"Origin", "http://evil.example"}}, 403},
		{"same site", local, "localhost", [][2]string{{"Sec-Fetch-Site", "same-origin"}}, 200},
		{"cross site", local, "localhost", [][2]string{{"Sec-Fetch-Site", "cross-site"}}, 403},
		{"allowed origin", local, "localhost", [][2]string{{"Origin", "https://App.example"}, {"Sec-Fetch-Site", "cross-site"}}, 200},
		{"allowed origin, foreign host", local, "evil.example", [][2]string{{"Origin", "https://app.example"}}, 421},
		{"another scheme", local, "localhost", [][2]string{{"Origin", "http://app.example"}}, 403},
		{"allowed and foreign origin", local, "localhost", [][2]string{{"Origin", "https://app.example"}, {"Origin", "http://evil.example"}}, 403},
		{"on the LAN", lan, "evil.example", [][2]string{{"Origin", "http://evil.example"}}, 200},
		{"on all interfaces", "[::]:8080", "evil.example", nil, 200},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			ran := false
			o := hostcheck.Options{Address: test.listen, AllowedHosts: []string{"Dev.Box:99"}, AllowedOrigins: []string{"https://app.example"}}
			h := hostcheck.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { ran = true }), o)
			r := httptest.NewRequest("POST", "/", nil)
			r.Host = test.host
			for _, p := range test.headers {
				r.Header.Add(p[0], p[1])
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != test.want || ran != (test.want == 200) {
				t.Fatalf("answered %d, ran %t, want %d: %s", w.Code, ran, test.want, w.Body)
			}
			hosts := hostcheck.Hosts(o)
			for range 2 { // the second time it may know the host
				if test.headers == nil && hosts([]byte(test.host)) != ran {
					t.Errorf("Hosts tells otherwise: %t", !ran)
				}
			}
			if e := status.Parse(w.Body.String()); !ran && (e == nil || int(e.Code) != test.want || !e.Refused) {
				t.Fatalf("the refusal is %q", w.Body)
			}
		})
	}
}

func TestLoopback(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]bool{
		"127.0.0.1:80": true, "[::1]:80": true, "localhost:80": true, "::1": true, "127.9.9.9": true,
		"0.0.0.0:80": false, "[::]:80": false, ":80": false, "192.0.2.1:80": false, "example.org:80": false, "": false,
	} {
		if got := hostcheck.Loopback(address); got != want {
			t.Errorf("Loopback(%q) = %t", address, got)
		}
	}
}
