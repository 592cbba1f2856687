// Package jsonhttp calls HTTP servers by net/http's client, with JSON by hand: the same caller for all of them.
package jsonhttp

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/cb02dfca/micro/bench/internal/cell"
	"github.com/cb02dfca/micro/bench/internal/worker"
)

// Document is the message: {"payload": "base64"}.
type Document struct {
	Payload []byte `json:"payload"`
}

// Dial gives callers that post a Document to url and read one. HTTP/1.1 has one call under way on a connection, so each
// caller has a connection of its own, whatever the cell says.
func Dial(c cell.Cell, url string, header http.Header) ([]worker.Op, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConns, t.MaxIdleConnsPerHost, t.DisableCompression = 0, c.Callers, true
	client := &http.Client{Transport: t}
	var ops []worker.Op
	for range c.Callers {
		doc := Document{Payload: worker.Payload(c.Payload)}
		ops = append(ops, func() error { return post(client, url, header, doc) })
	}
	return ops, nil
}

func post(client *http.Client, url string, header http.Header, doc Document) error {
	body, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	req, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	req.Header.Set("Content-Type", "application/json")
	rsp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer rsp.Body.Close()
	text, err := io.ReadAll(rsp.Body)
	if err != nil {
		return err
	}
	if rsp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", rsp.Status, text)
	}
	var got Document
	if err := json.Unmarshal(text, &got); err != nil {
		return err
	}
	return worker.Check(got.Payload, doc.Payload)
}
