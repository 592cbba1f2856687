package mapping

import (
	"encoding/json"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/cb02dfca/micro/pkg/codec"
)

// maxMessageDepth is how deep protobuf messages may stand inside each other.
const maxMessageDepth = 100

// jsonForm reads what comes next as a JSON text: bytes as base64, times as of RFC 3339.
func (d *Decoder) jsonForm() (string, error) {
	value, err := d.any()
	if err != nil {
		return "", err
	}
	return jsonText(value)
}

// jsonText gives the JSON of what was read. A float that is no number, and a time in a year above 9999, have none.
func jsonText(value any) (string, error) {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(value); err != nil {
		return "", Errorf("it has no JSON form: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

// message writes a protobuf message as protojson has it.
func (e *Encoder) message(m proto.Message) error {
	text, err := protojson.MarshalOptions{}.Marshal(m)
	if err != nil {
		return &plain{err}
	}
	return e.json(text)
}

// message reads a protobuf message, whose former content is lost.
func (d *Decoder) message(m proto.Message) error {
	if !m.ProtoReflect().IsValid() {
		return codec.Unsupported("want a pointer to a message")
	}
	text, err := d.jsonForm()
	if err != nil {
		return err
	}
	o := protojson.UnmarshalOptions{DiscardUnknown: !d.strict, RecursionLimit: maxMessageDepth}
	if err := o.Unmarshal([]byte(text), m); err != nil {
		return &Error{reason: (&plain{err}).Error(), cause: err}
	}
	return nil
}

// plain is an error of protojson without its prefix, and without the no-break space that it has at random.
type plain struct{ error }

func (e *plain) Error() string {
	return strings.TrimPrefix(strings.ReplaceAll(e.error.Error(), "\u00a0", " "), "proto: ")
}

func (e *plain) Unwrap() error { return e.error }
