package main

import (
	"net/http"

	"github.com/cb02dfca/micro/bench/internal/cell"
	"github.com/cb02dfca/micro/bench/internal/jsonhttp"
	"github.com/cb02dfca/micro/bench/internal/worker"
)

// plain is a call as curl makes it.
type plain struct{}

func (plain) Serve(c cell.Cell, _ *worker.Counter) (worker.Place, error) {
	if c.Kind != cell.Call || c.Nodes > 0 || c.Endpoints > 0 {
		return worker.Place{}, worker.ErrUnfit
	}
	return serving{}.serve()
}

func (plain) Dial(c cell.Cell, at worker.Place) ([]worker.Op, error) {
	return jsonhttp.Dial(c, "http://"+at.Address+"/"+jsonCall, http.Header{"Micro-Service": {service}})
}
