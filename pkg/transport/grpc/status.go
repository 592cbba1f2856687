package grpc

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/cb02dfca/micro/pkg/status"
)

// code is gRPC's code of how a call ended (https://github.com/grpc/grpc/blob/master/doc/statuscodes.md).
type code int

const (
	codeOK                 code = 0
	codeCanceled           code = 1
	codeUnknown            code = 2
	codeInvalidArgument    code = 3
	codeDeadlineExceeded   code = 4
	codeNotFound           code = 5
	codeAlreadyExists      code = 6
	codePermissionDenied   code = 7
	codeResourceExhausted  code = 8
	codeFailedPrecondition code = 9
	codeAborted            code = 10
	codeOutOfRange         code = 11
	codeUnimplemented      code = 12
	codeInternal           code = 13
	codeUnavailable        code = 14
	codeDataLoss           code = 15
	codeUnauthenticated    code = 16
)

// String gives the code's name as gRPC's documents write it.
func (c code) String() string {
	names := [...]string{"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
		"PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL",
		"UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"}
	if c >= 0 && int(c) < len(names) {
		return names[c]
	}
	return "CODE " + strconv.Itoa(int(c))
}

// codeOf gives gRPC's code for one of ours. Those that go-micro knows are the same as in go-micro's.
func codeOf(c status.Code) code {
	switch c {
	case status.InvalidArgument:
		return codeInvalidArgument
	case status.Unauthenticated:
		return codeUnauthenticated
	case status.PermissionDenied:
		return codePermissionDenied
	case status.NotFound:
		return codeNotFound
	case status.DeadlineExceeded, status.HandlerTimeout:
		return codeDeadlineExceeded
	case status.AlreadyExists:
		return codeAlreadyExists
	case status.FailedPrecondition:
		return codeFailedPrecondition
	case status.TooLarge, status.HeaderTooLarge, status.ResourceExhausted:
		return codeResourceExhausted
	case status.Canceled:
		return codeCanceled
	case status.Internal:
		return codeInternal
	case status.Unimplemented, status.UnsupportedMedia:
		return codeUnimplemented
	case status.Unavailable, status.Misdirected, http.StatusBadGateway:
		return codeUnavailable
	}
	return codeUnknown
}

// statusOf gives our code for one of gRPC's.
func statusOf(c code) status.Code {
	switch c {
	case codeCanceled:
		return status.Canceled
	case codeInvalidArgument, codeOutOfRange:
		return status.InvalidArgument
	case codeDeadlineExceeded:
		return status.DeadlineExceeded
	case codeNotFound:
		return status.NotFound
	case codeAlreadyExists, codeAborted:
		return status.AlreadyExists
	case codePermissionDenied:
		return status.PermissionDenied
	case codeResourceExhausted:
		return status.ResourceExhausted
	case codeFailedPrecondition:
		return status.FailedPrecondition
	case codeUnimplemented:
		return status.Unimplemented
	case codeUnavailable:
		return status.Unavailable
	case codeUnauthenticated:
		return status.Unauthenticated
	}
	return status.Internal
}

// errorType names go-micro's error among the details of a google.rpc.Status. Ours is the same message with one field more.
const errorType = "type.googleapis.com/errors.Error"

// The fields of google.rpc.Status, of google.protobuf.Any, and of go-micro's errors.Error.
const (
	fieldStatusCode    = 1
	fieldStatusMessage = 2
	fieldStatusDetails = 3

	fieldAnyType  = 1
	fieldAnyValue = 2

	fieldErrorID      = 1
	fieldErrorCode    = 2
	fieldErrorDetail  = 3
	fieldErrorStatus  = 4
	fieldErrorRefused = 15 // bool; ours alone
)

// appendStatus appends a google.rpc.Status with e's details, before which e itself stands for a peer of go-micro's or ours.
func appendStatus(dst []byte, c code, message string, e *status.Error, micro bool) []byte {
	dst = appendUint(dst, fieldStatusCode, uint64(c))
	dst = appendText(dst, fieldStatusMessage, message)
	if micro {
		dst = appendDetail(dst, errorType, appendError(nil, e))
	}
	for _, p := range e.Details {
		dst = appendDetail(dst, p.URL(), p.Value)
	}
	return dst
}

// appendDetail appends a detail of a google.rpc.Status, an Any.
func appendDetail(dst []byte, url string, value []byte) []byte {
	packed := appendText(nil, fieldAnyType, url)
	packed = protowire.AppendBytes(protowire.AppendTag(packed, fieldAnyValue, protowire.BytesType), value)
	return protowire.AppendBytes(protowire.AppendTag(dst, fieldStatusDetails, protowire.BytesType), packed)
}

// appendError appends e as an errors.Error.
func appendError(detail []byte, e *status.Error) []byte {
	detail = appendText(detail, fieldErrorID, e.ID)
	detail = appendUint(detail, fieldErrorCode, uint64(e.Code))
	detail = appendText(detail, fieldErrorDetail, e.Detail)
	detail = appendText(detail, fieldErrorStatus, e.Code.String())
	if e.Refused {
		detail = appendUint(detail, fieldErrorRefused, 1)
	}
	return detail
}

func appendUint(dst []byte, field protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(dst, field, protowire.VarintType), v)
}

func appendText(dst []byte, field protowire.Number, v string) []byte {
	return protowire.AppendString(protowire.AppendTag(dst, field, protowire.BytesType), strings.ToValidUTF8(v, "\uFFFD"))
}

// fields yields the fields of an encoded message: a number where it is a varint, and bytes where it has them. It reports
// whether the message was whole.
func fields(message []byte, yield func(field protowire.Number, number uint64, value []byte)) bool {
	for len(message) > 0 {
		field, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return false
		}
		message = message[n:]
		var number uint64
		var value []byte
		switch kind {
		case protowire.VarintType:
			number, n = protowire.ConsumeVarint(message)
		case protowire.BytesType:
			value, n = protowire.ConsumeBytes(message)
		default:
			n = protowire.ConsumeFieldValue(field, kind, message)
		}
		if n < 0 {
			return false
		}
		message = message[n:]
		yield(field, number, value)
	}
	return true
}

// readStatus gives the error that a peer answered with: of the first detail that is an errors.Error, as go-micro's peers and ours
// send it; else of the message where that is go-micro's JSON; else of code and message. Details of other types are its details.
func readStatus(c code, message, encoded string) *status.Error {
	var own *status.Error
	var others []status.Packed
	if raw, err := decodeBin(encoded); err == nil && len(raw) > 0 {
		fields(raw, func(field protowire.Number, _ uint64, value []byte) {
			if field != fieldStatusDetails {
				return
			}
			name, packed := readAny(value)
			if name == errorType && own == nil {
				own = readError(packed)
				return
			}
			others = append(others, status.Pack(name, packed))
		})
	}
	if own == nil && strings.HasPrefix(message, "{") {
		if e := status.Parse(message); e.Detail != message {
			own = e
		}
	}
	if own != nil {
		own.Details = append(own.Details, others...)
		return own
	}
	e := &status.Error{Code: statusOf(c), Detail: message, Remote: true, Details: others}
	if c == codeUnknown || c == codeAborted || c == codeOutOfRange || c == codeDataLoss || c > codeUnauthenticated {
		e.Detail = strings.TrimSuffix(c.String()+": "+message, ": ") // codes that ours do not tell
	}
	return e
}

func readAny(message []byte) (name string, value []byte) {
	fields(message, func(field protowire.Number, _ uint64, v []byte) {
		switch field {
		case fieldAnyType:
			name = string(v)
		case fieldAnyValue:
			value = v
		}
	})
	return name, value
}

// readError reads an errors.Error, nil where there is none.
func readError(message []byte) *status.Error {
	e := &status.Error{Remote: true}
	whole := fields(message, func(field protowire.Number, number uint64, value []byte) {
		switch field {
		case fieldErrorID:
			e.ID = string(value)
		case fieldErrorCode:
			e.Code = status.Code(int32(number))
		case fieldErrorDetail:
			e.Detail = string(value)
		case fieldErrorRefused:
			e.Refused = number == 1
		}
	})
	if !whole {
		return nil
	}
	if e.Code < 400 || e.Code > 599 {
		e.Code = status.Internal
	}
	return e
}

// encodeMessage makes text fit for grpc-message: bytes that are not visible ASCII, and %, become %XX.
func encodeMessage(text string) string {
	plain := func(c byte) bool { return c >= ' ' && c <= '~' && c != '%' }
	at := 0
	for at < len(text) && plain(text[at]) {
		at++
	}
	if at == len(text) {
		return text
	}
	var b bytes.Buffer
	b.WriteString(text[:at])
	for i := at; i < len(text); i++ {
		if c := text[i]; plain(c) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// decodeMessage reads a grpc-message. What is not well encoded stays as it is.
func decodeMessage(text string) string {
	if !strings.Contains(text, "%") {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '%' && i+2 < len(text) {
			if v, err := strconv.ParseUint(text[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(v))
				i += 2
				continue
			}
		}
		b.WriteByte(text[i])
	}
	if s := b.String(); utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(b.String(), "\uFFFD")
}

// encodeBin writes the value of a header whose name ends in -bin.
func encodeBin(value []byte) string { return base64.RawStdEncoding.EncodeToString(value) }

// decodeBin reads one, with or without padding.
func decodeBin(text string) ([]byte, error) {
	return base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
}
