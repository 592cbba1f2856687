package status_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/cb02dfca/micro/pkg/status"
)

func TestRetryDelay(t *testing.T) {
	t.Parallel()
	after := func(d time.Duration) proto.Message { return &errdetails.RetryInfo{RetryDelay: durationpb.New(d)} }
	later := status.New(status.Unavailable, "later")
	for name, c := range map[string]struct {
		err  error
		want time.Duration
		ok   bool
	}{
		"none":         {later, 0, false},
		"no status":    {errors.New("later"), 0, false},
		"nil":          {nil, 0, false},
		"another":      {later.With(wrapperspb.String("x")), 0, false},
		"one":          {later.With(wrapperspb.String("x"), after(1500*time.Millisecond)), 1500 * time.Millisecond, true},
		"wrapped":      {fmt.Errorf("call: %w", later.With(after(time.Hour))), time.Hour, true},
		"without time": {later.With(&errdetails.RetryInfo{}), 0, true},
		"negative":     {later.With(after(-time.Second)), 0, false},
		"too long":     {later.With(&errdetails.RetryInfo{RetryDelay: &durationpb.Duration{Seconds: 1 << 62}}), 0, false},
		"cut off":      {&status.Error{Details: []status.Packed{{Type: "google.rpc.RetryInfo", Value: []byte{0x0a, 9}}}}, 0, false},
		"cut inside":   {&status.Error{Details: []status.Packed{{Type: "google.rpc.RetryInfo", Value: []byte{0x0a, 1, 8}}}}, 0, false},
	} {
		if got, ok := status.RetryDelay(c.err); got != c.want || ok != c.ok {
			t.Errorf("%s: got %s, %v, want %s, %v", name, got, ok, c.want, c.ok)
		}
	}
}
