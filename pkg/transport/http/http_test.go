package http_test

import (
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/pkg/transport/http"
	"github.com/cb02dfca/micro/pkg/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newTransport(t *testing.T, o http.Options) *http.Transport {
	t.Helper()
	tr, err := http.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func TestConformance(t *testing.T) {
	t.Parallel()
	transporttest.Run(t, func(t *testing.T) transporttest.Harness {
		return transporttest.Harness{Transport: newTransport(t, http.Options{}), Address: "127.0.0.1:0"}
	})
}

// TestListenIPv4: 0.0.0.0 is all addresses of IPv4, and none of IPv6.
func TestListenIPv4(t *testing.T) {
	t.Parallel()
	l, err := newTransport(t, http.Options{}).Listen(t.Context(), "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if !strings.HasPrefix(l.Addr(), "0.0.0.0:") {
		t.Errorf("it listens on %s", l.Addr())
	}
}
