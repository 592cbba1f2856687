// Command nethttp is net/http with JSON by hand: what a handler without a framework costs.
package main

import (
	"encoding/json"
	"net"
	"net/http"

	"github.com/cb02dfca/micro/bench/internal/cell"
	"github.com/cb02dfca/micro/bench/internal/jsonhttp"
	"github.com/cb02dfca/micro/bench/internal/worker"
)

func main() { worker.Main(map[string]worker.Peer{"nethttp-json": peer{}}) }

type peer struct{}

func (peer) Serve(c cell.Cell, _ *worker.Counter) (worker.Place, error) {
	if c.Kind != cell.Call {
		return worker.Place{}, worker.ErrUnfit
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /echo", echo)
	return worker.Listen(func(l net.Listener) { http.Serve(l, mux) })
}

func echo(w http.ResponseWriter, r *http.Request) {
	var doc jsonhttp.Document
	if err := json.NewDecoder(r.Body).Decode(&doc); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(&doc) // the caller has gone where it fails
}

func (peer) Dial(c cell.Cell, at worker.Place) ([]worker.Op, error) {
	return jsonhttp.Dial(c, "http://"+at.Address+"/echo", nil)
}
