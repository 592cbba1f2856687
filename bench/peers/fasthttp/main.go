// Command fasthttp is fasthttp with the message in protobuf, by hand. HTTP/1.1 has one call under way on a connection, so
// each caller has one of its own, whatever the cell says.
package main

import (
	"fmt"
	"net"

	"github.com/valyala/fasthttp"

	"github.com/cb02dfca/micro/bench/echo"
	"github.com/cb02dfca/micro/bench/internal/cell"
	"github.com/cb02dfca/micro/bench/internal/worker"
)

func main() { worker.Main(map[string]worker.Peer{"fasthttp": peer{}}) }

type peer struct{}

func (peer) Serve(c cell.Cell, _ *worker.Counter) (worker.Place, error) {
	if c.Kind != cell.Call {
		return worker.Place{}, worker.ErrUnfit
	}
	s := &fasthttp.Server{Handler: handle, MaxRequestBodySize: 8 << 20}
	return worker.Listen(func(l net.Listener) { s.Serve(l) })
}

func handle(ctx *fasthttp.RequestCtx) {
	m := echo.MessageFromVTPool()
	defer m.ReturnToVTPool()
	if err := m.UnmarshalVT(ctx.PostBody()); err != nil {
		ctx.Error(err.Error(), fasthttp.StatusBadRequest)
		return
	}
	ctx.Response.SetBody(encode(m, nil))
}

// encode encodes m into the storage of buf.
func encode(m *echo.Message, buf []byte) []byte {
	n := m.SizeVT()
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	_, _ = m.MarshalToSizedBufferVT(buf) // it has the size that it asked for
	return buf
}

func (peer) Dial(c cell.Cell, at worker.Place) ([]worker.Op, error) {
	client := &fasthttp.HostClient{Addr: at.Address, MaxConns: c.Callers}
	var ops []worker.Op
	for range c.Callers {
		m, answer := &echo.Message{Payload: worker.Payload(c.Payload)}, new(echo.Message)
		var req fasthttp.Request
		var rsp fasthttp.Response
		var body []byte
		req.SetRequestURI("http://" + at.Address + "/echo")
		req.Header.SetMethod("POST")
		ops = append(ops, func() error {
			body = encode(m, body)
			req.SetBodyRaw(body)
			if err := client.Do(&req, &rsp); err != nil {
				return err
			}
			if rsp.StatusCode() != fasthttp.StatusOK {
				return fmt.Errorf("status %d: %s", rsp.StatusCode(), rsp.Body())
			}
			answer.ResetVT()
			if err := answer.UnmarshalVT(rsp.Body()); err != nil {
				return err
			}
			return worker.Check(answer.Payload, m.Payload)
		})
	}
	return ops, nil
}
