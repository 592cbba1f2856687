package http_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cb02dfca/micro/pkg/registry"
	registryserver "github.com/cb02dfca/micro/pkg/registry/http/server"
)

// TestListsFollowChanges holds lists against the nodes that there should be, after random changes: of services of many nodes and of few,
// nodes that go over to another service, and records of any length.
func TestListsFollowChanges(t *testing.T) {
	t.Parallel()
	s := handler(t, registryserver.Options{MaxWrites: 1 << 30})
	r := rand.New(rand.NewPCG(7, 8))
	want := map[string]registry.Node{}
	change := func() {
		n := registry.Node{ID: fmt.Sprint("n", r.IntN(700)), Service: fmt.Sprint("s", r.IntN(1+r.IntN(30))), Address: "127.0.0.1:1",
			Metadata: map[string]string{"x": strings.Repeat("y", r.IntN(500))}}
		if was, ok := want[n.ID]; ok && r.IntN(3) == 0 {
			if w := ask(s, "DELETE /v1/nodes/"+n.ID+"?service="+was.Service, "", "Micro-Lease: "+secretA); w.Code != 204 {
				t.Fatal(w.Code, w.Body)
			}
			delete(want, n.ID)
			return
		}
		body, err := json.Marshal(n)
		must(t, err)
		if w := ask(s, "PUT /v1/nodes/"+n.ID, string(body), "Micro-Lease: "+secretA); w.Code > 201 {
			t.Fatal(w.Code, w.Body)
		}
		want[n.ID] = n
	}
	for _, changes := range append(slices.Repeat([]int{0, 1, 2, 40}, 30), 9000, 3, 300) { // the last but two is more than the server remembers
		for range changes {
			change()
		}
		w := ask(s, "GET /v1/nodes", "")
		var got struct{ Nodes []registry.Node }
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatalf("%v: %.300s", err, w.Body)
		}
		if length := w.Header().Get("Content-Length"); length != fmt.Sprint(w.Body.Len()) {
			t.Fatalf("content length %s of %d", length, w.Body.Len())
		}
		sorted := slices.AppendSeq([]registry.Node{}, maps.Values(want))
		registry.Sort(sorted)
		if !slices.EqualFunc(got.Nodes, sorted, registry.Node.Equal) {
			t.Fatalf("the list has %d nodes, want %d, or others, or in another order", len(got.Nodes), len(sorted))
		}
	}
}

// TestListsShowWhatWasAcknowledged: a list that begins after a registration's answer has the node, however many come and ask at a time.
func TestListsShowWhatWasAcknowledged(t *testing.T) {
	t.Parallel()
	s := handler(t, registryserver.Options{MaxWrites: 1 << 30, Data: t.TempDir()})
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 30 {
				id := fmt.Sprintf("n-%d-%d", i, j)
				ask(s, "PUT /v1/nodes/"+id, strings.Replace(record, "greeter", "s-"+id, 1), "Micro-Lease: "+secretA)
				for _, c := range []struct{ path, want string }{{"/v1/nodes", `"id":"` + id + `"`}, {"/v1/services", `"name":"s-` + id + `"`}} {
					if got := ask(s, "GET "+c.path, "").Body.String(); !strings.Contains(got, c.want) {
						t.Errorf("%s does not show %s, which was acknowledged", c.path, id)
					}
				}
				ask(s, "DELETE /v1/nodes/n-"+fmt.Sprintf("%d-%d", i, j-1), "", "Micro-Lease: "+secretA)
			}
		})
	}
	all.Wait()
}
