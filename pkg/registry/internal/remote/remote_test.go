package remote_test

import (
	"context"
	"errors"
	"net/http"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/registry/internal/remote"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		turns := remote.NewTurns()
		ctx, done, err := turns.Begin(t.Context(), "a")
		if err != nil || ctx.Err() != nil {
			t.Fatal(err)
		}
		waiting, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, _, err := turns.Begin(waiting, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a second turn for an id: %v", err)
		}
		var order []string
		go func() {
			_, done, err := turns.Begin(t.Context(), "a")
			if err != nil {
				t.Error(err)
				return
			}
			order = append(order, "second")
			done()
		}()
		synctest.Wait()
		order = append(order, "first")
		done()
		synctest.Wait()
		if len(order) != 2 || order[0] != "first" {
			t.Errorf("the turns came as %q", order)
		}
		turns.Close(time.Second)
		if _, _, err := turns.Begin(t.Context(), "a"); !errors.Is(err, registry.ErrClosed) || turns.Go(func(context.Context) {}) {
			t.Errorf("after Close: %v", err)
		}
	})
}

// TestCloseRunsOutOfPatience: what has begun has its time, then it is broken off, and who waits for a turn gets ErrClosed.
func TestCloseRunsOutOfPatience(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		turns, begun := remote.NewTurns(), time.Now()
		ctx, done, err := turns.Begin(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		go func() { <-ctx.Done(); done() }()
		go func() { // the turn is free, and it is over, at one time
			if _, done, err := turns.Begin(t.Context(), "a"); err == nil {
				done()
			} else if !errors.Is(err, registry.ErrClosed) {
				t.Error(err)
			}
		}()
		turns.Go(func(ctx context.Context) { <-ctx.Done() })
		synctest.Wait()
		turns.Close(3 * time.Second)
		if took := time.Since(begun); took != 3*time.Second {
			t.Errorf("Close took %v", took)
		}
	})
}

func TestReason(t *testing.T) {
	t.Parallel()
	client := &http.Client{Transport: &http.Transport{}}
	_, err := client.Get("http://127.0.0.1:1/x")
	if got := remote.Reason(err); !errors.Is(got, syscall.ECONNREFUSED) || got.Error() != "connection refused" {
		t.Errorf("the reason is %v", got)
	}
	if own := errors.New("x"); remote.Reason(own) != own {
		t.Error("another error changed")
	}
}
