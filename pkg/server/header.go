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
	text := sent.AppendJSON(nil)
	if len(text) > metadata.MaxValue {
		text = sent.Within(metadata.MaxValue).AppendJSON(nil)
	}
	out, err := header.Set(transport.HeaderError, string(text))
	if err != nil { // the handler's own headers leave no room: the error matters more
		out, _ = metadata.MD(nil).Set(transport.HeaderError, string(text))
	}
	return out
}
