package http_test

import (
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
