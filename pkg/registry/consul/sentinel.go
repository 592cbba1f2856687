package consul

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/cb02dfca/micro/pkg/registry/internal/retry"
)

// sentinel has the agent wait for a change of one node, as long as there are nodes: so that an agent that is started anew,
// or somebody who removes the node, is noticed at once and not when the check is passed next. Where the agent went away, or
// lost that node, all are looked at.
func (k *keeper) sentinel(context.Context) {
	var hash, watched string
	lost, pace := true, firstPace
	for {
		id, ok := k.any(watched)
		if !ok {
			select {
			case <-k.life.Done():
				return
			case <-k.guard:
				continue
			}
		}
		if id != watched {
			hash, watched = "", id
		}
		now, err := k.changed(k.life, id, hash)
		switch {
		case refusal(err): // renewals tell of it
			pace = refusedRetry
		case err != nil:
			lost, pace = true, min(retry.Next(pace), longestRetry)
			k.restore()
		case now == "":
			pace = min(retry.Next(pace), longestRetry)
			if held, _ := k.any(id); held == id {
				k.restore()
			}
		case lost:
			lost, pace = false, firstPace
			k.restore()
		case now != hash:
			pace = firstPace
			k.hasten(id)
		default:
			pace = firstPace
		}
		if hash = now; !retry.Pause(k.life, pace) {
			return
		}
	}
}

// any gives a node that is held: the one with that id, where it is.
func (k *keeper) any(id string) (string, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if h := k.own[id]; h != nil && !h.stray {
		return id, true
	}
	for id, h := range k.own {
		if !h.stray {
			return id, true
		}
	}
	return "", false
}

// changed gives the hash of what the agent has under an id, once it is another one than hash, or after a while; empty where the
// agent has nothing. Without a hash it does not wait.
func (k *keeper) changed(ctx context.Context, id, hash string) (string, error) {
	values, patience := url.Values{}, k.r.o.Timeout
	if hash != "" {
		values.Set("hash", hash)
		values.Set("wait", waitTime.String())
		patience += waitTime + waitTime/16
	}
	a, err := k.r.ask(ctx, http.MethodGet, "/v1/agent/service/"+id, values, nil, patience)
	if err != nil {
		return "", err
	}
	switch a.code {
	case http.StatusOK:
		return a.header.Get(hashHeader), nil
	case http.StatusNotFound:
		return "", nil
	}
	return "", k.r.refused(a)
}

// decode reads an answer in JSON.
func (a *answer) decode(out any) error { return json.Unmarshal(a.body, out) }
