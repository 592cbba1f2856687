package commands

import (
	"bytes"
	"encoding/json"
	"mime"

	"github.com/cb02dfca/micro/pkg/codec"
	jsoncodec "github.com/cb02dfca/micro/pkg/codec/json"
	"github.com/cb02dfca/micro/pkg/codec/jsonrpc"
)

// form gives the codec of a content type whose bodies are typed and shown as JSON; nil for JSON itself, and for all others,
// whose bodies go as they stand.
func (in *invocation) form(contentType string) codec.Codec {
	if in.described != nil && contentType == in.described.ContentType() {
		return in.described
	}
	if isPlainRPC(contentType) {
		return jsonrpc.Plain(jsoncodec.New())
	}
	c, err := in.Backends.Forms.For(contentType)
	if err != nil {
		return nil
	}
	return c
}

// isPlainRPC reports whether a content type is application/json;rpc=2.0: our name for JSON-RPC 2.0 as others' servers take it, under the
// content type of JSON.
func isPlainRPC(contentType string) bool {
	media, params, err := mime.ParseMediaType(contentType)
	return err == nil && media == contentJSON && params["rpc"] == "2.0"
}

// asJSON gives the JSON of a body in a form.
func asJSON(form codec.Codec, body []byte) (json.RawMessage, bool) {
	if _, described := form.(*messages); form == nil || len(body) == 0 && !described { // a message may well be empty
		return nil, false
	}
	var raw json.RawMessage
	err := form.Unmarshal(body, &raw)
	return raw, err == nil
}

// typed reports whether the body is given as JSON.
func (i *input) typed() bool { return i.form != nil || isJSONType(i.contentType) }

// wired gives what stands in the input as it is sent, once it was checked.
func (i *input) wired() ([]byte, error) {
	if err := i.check(); err != nil {
		return nil, err
	}
	return i.wire(i.data)
}

// wire gives a body as it is sent: what was given as JSON in the form of its content type. One that is in that form already,
// as a file may be, goes as it stands.
func (i *input) wire(body []byte) ([]byte, error) {
	if i.form == nil || !json.Valid(body) {
		return body, nil
	}
	sent, err := i.form.Append(nil, json.RawMessage(bytes.TrimSpace(body)))
	if err != nil {
		return nil, usage("%s cannot be sent as %s: %s; %s", i.what, shortType(i.contentType), lastCause(err), or(i.unsent, "nothing was sent")).because(err)
	}
	return sent, nil
}
