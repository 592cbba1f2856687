// Package reflection is gRPC's server reflection (github.com/grpc/grpc/blob/master/doc/server-reflection.md), both ways: a [Server]
// tells what a service serves, and a [Client] asks a server that.
//
// The versions v1 and v1alpha differ in their names alone. Their messages are written and read here as they stand on the wire, so
// that nothing of grpc-go is linked.
package reflection

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// The service in its two versions, and its method.
const (
	V1      = "grpc.reflection.v1.ServerReflection"
	V1Alpha = "grpc.reflection.v1alpha.ServerReflection"
	Method  = "ServerReflectionInfo"
)

// The methods of the two versions, as a call's path has them.
const (
	MethodV1      = V1 + "/" + Method
	MethodV1Alpha = V1Alpha + "/" + Method
)

// The codes of errors (google.rpc.Code).
const (
	codeInvalidArgument = 3
	codeNotFound        = 5
	codeUnimplemented   = 12
)

// question is a ServerReflectionRequest: one of the fields below.
type question struct {
	host   string
	ask    protowire.Number // which of the fields; 0 where there is none
	text   string           // the name of a file, a symbol or a type
	number int32            // of an extension
}

// The fields of a ServerReflectionRequest.
const (
	askHost             = 1
	askFile             = 3
	askSymbol           = 4
	askExtension        = 5
	askExtensionNumbers = 6
	askServices         = 7
)

// The fields of a ServerReflectionResponse.
const (
	tellHost             = 1
	tellRequest          = 2
	tellFiles            = 4
	tellExtensionNumbers = 5
	tellServices         = 6
	tellError            = 7
)

// append appends the question's wire form.
func (q *question) append(dst []byte) []byte {
	dst = protowire.AppendTag(dst, q.ask, protowire.BytesType)
	if q.ask != askExtension {
		return protowire.AppendString(dst, q.text)
	}
	inner := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), q.text)
	inner = protowire.AppendVarint(protowire.AppendTag(inner, 2, protowire.VarintType), uint64(q.number))
	return protowire.AppendBytes(dst, inner)
}

// readQuestion reads a ServerReflectionRequest.
func readQuestion(data []byte) (q question, err error) {
	err = eachField(data, func(number protowire.Number, value []byte, _ uint64) error {
		switch number {
		case askHost:
			q.host = string(value)
		case askFile, askSymbol, askExtensionNumbers, askServices:
			q.ask, q.text = number, string(value)
		case askExtension:
			q.ask = number
			return eachField(value, func(number protowire.Number, value []byte, n uint64) error {
				switch number {
				case 1:
					q.text = string(value)
				case 2:
					q.number = int32(n)
				}
				return nil
			})
		}
		return nil
	})
	return q, err
}

// answer is a ServerReflectionResponse: one of the fields below.
type answer struct {
	files    [][]byte // FileDescriptorProtos
	services []string
	base     string // of numbers
	numbers  []int32
	err      *Error
}

// Error is what a server answers a question with that it cannot answer otherwise.
type Error struct {
	// Code is gRPC's: 5 is "not found".
	Code int32
	// Message is the server's text.
	Message string
}

func (e *Error) Error() string { return fmt.Sprintf("%s (code %d)", e.Message, e.Code) }

// append appends the answer's wire form, to a question that came as it is given.
func (a *answer) append(dst, asked []byte, q *question) []byte {
	if q.host != "" {
		dst = protowire.AppendString(protowire.AppendTag(dst, tellHost, protowire.BytesType), q.host)
	}
	dst = protowire.AppendBytes(protowire.AppendTag(dst, tellRequest, protowire.BytesType), asked)
	var inner []byte
	field := protowire.Number(tellFiles)
	switch {
	case a.err != nil:
		field = tellError
		inner = protowire.AppendVarint(protowire.AppendTag(inner, 1, protowire.VarintType), uint64(a.err.Code))
		inner = protowire.AppendString(protowire.AppendTag(inner, 2, protowire.BytesType), a.err.Message)
	case a.services != nil:
		field = tellServices
		for _, name := range a.services {
			one := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), name)
			inner = protowire.AppendBytes(protowire.AppendTag(inner, 1, protowire.BytesType), one)
		}
	case a.base != "":
		field = tellExtensionNumbers
		inner = protowire.AppendString(protowire.AppendTag(inner, 1, protowire.BytesType), a.base)
		for _, n := range a.numbers {
			inner = protowire.AppendVarint(protowire.AppendTag(inner, 2, protowire.VarintType), uint64(n))
		}
	default:
		for _, file := range a.files {
			inner = protowire.AppendBytes(protowire.AppendTag(inner, 1, protowire.BytesType), file)
		}
	}
	return protowire.AppendBytes(protowire.AppendTag(dst, field, protowire.BytesType), inner)
}

// readAnswer reads a ServerReflectionResponse. Its parts are of data.
func readAnswer(data []byte) (a answer, err error) {
	err = eachField(data, func(number protowire.Number, value []byte, _ uint64) error {
		switch number {
		case tellFiles:
			return eachField(value, func(number protowire.Number, value []byte, _ uint64) error {
				if number == 1 {
					a.files = append(a.files, value)
				}
				return nil
			})
		case tellServices:
			return eachField(value, func(number protowire.Number, value []byte, _ uint64) error {
				if number != 1 {
					return nil
				}
				return eachField(value, func(number protowire.Number, value []byte, _ uint64) error {
					if number == 1 {
						a.services = append(a.services, string(value))
					}
					return nil
				})
			})
		case tellError:
			a.err = new(Error)
			return eachField(value, func(number protowire.Number, value []byte, n uint64) error {
				switch number {
				case 1:
					a.err.Code = int32(n)
				case 2:
					a.err.Message = string(value)
				}
				return nil
			})
		}
		return nil
	})
	return a, err
}

// eachField calls f for each field of a message: n is a number's bits, value the bytes of the rest.
func eachField(data []byte, f func(number protowire.Number, value []byte, n uint64) error) error {
	for len(data) > 0 {
		number, wire, n := protowire.ConsumeTag(data)
		if n < 0 {
			return protowire.ParseError(n)
		}
		data = data[n:]
		var value []byte
		var bits uint64
		switch wire {
		case protowire.BytesType:
			value, n = protowire.ConsumeBytes(data)
		case protowire.VarintType:
			bits, n = protowire.ConsumeVarint(data)
		default:
			n = protowire.ConsumeFieldValue(number, wire, data)
			number = 0 // no message of reflection has such a field
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		data = data[n:]
		if err := f(number, value, bits); err != nil {
			return err
		}
	}
	return nil
}
