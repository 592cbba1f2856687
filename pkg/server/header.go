package server

import (
	"strings"

	"github.com/cb02dfca/micro/pkg/metadata"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// maxDetail bounds an error's text on the wire, in bytes, so that the error fits a metadata value.
const maxDetail = 2 << 10

// failure gives the header that carries e in a Reply or an End.
func failure(service string, header metadata.MD, e *status.Error) metadata.MD {
	sent := *e
	if sent.ID == "" {
		sent.ID = service
	}
	if len(sent.Detail) > maxDetail {
		sent.Detail = strings.ToValidUTF8(sent.Detail[:maxDetail], "") + "..."
	}
	text, err := sent.MarshalJSON()
	if err != nil { // a struct of strings and numbers always encodes
		return header
	}
	out, err := header.Set(transport.HeaderError, string(text))
	if err != nil {
		// The handler's own headers leave no room, or the escaped text is too long: the error's code matters more.
		sent.Detail = "the error's text is too long to carry"
		text, _ = sent.MarshalJSON()
		out, _ = metadata.MD(nil).Set(transport.HeaderError, string(text))
	}
	return out
}
