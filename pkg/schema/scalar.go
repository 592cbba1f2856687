package schema

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// unfit says why a string, number or boolean cannot stand for s: "" where it can.
func unfit(s *Schema, token json.Token, proto bool) string {
	fits := false
	switch v := token.(type) {
	case bool:
		fits = s.allows("boolean")
	case json.Number:
		fits = numberFits(s, v.String(), proto)
	case string:
		fits = s.allows("string") && textFits(s, v, proto)
	}
	if fits {
		return ""
	}
	if names := s.words(); proto && len(names) > 0 {
		return "want one of " + list(s.Enum) + ", got " + got(token)
	}
	why := ""
	if _, ok := token.(string); !ok && s.is("string") && len(s.Type) == 1 && s.Format != "" {
		return "want " + s.TypeName() + " in a string, got " + got(token)
	}
	if n, ok := token.(json.Number); ok && s.is("integer") && outOfRange(n.String()) {
		why = " (out of range)"
	}
	return "want " + s.TypeName() + ", got " + got(token) + why
}

func numberFits(s *Schema, literal string, proto bool) bool {
	switch {
	case s.is("number"), len(s.Type) == 0:
		return s.allows("number") && floatFits(s.Format, literal)
	case !s.is("integer"):
		return false
	case len(s.Enum) > 0 && proto:
		return protoIntFits("int32", literal)
	case proto || integerBits(s.Format) == 0:
		return protoIntFits(s.Format, literal)
	}
	return intFits(s.Format, literal)
}

// textFits checks what a string says.
func textFits(s *Schema, v string, proto bool) bool {
	numeric := integerBits(s.Format) != 0 || s.Format == "float" || s.Format == "double"
	switch {
	case s.ContentEncoding == "base64":
		return base64Fits(v, proto)
	case s.Format == "date-time":
		if !proto { // a decoder in another language may take the letters in lower case, as RFC 3339 section 5.6 allows
			v = strings.ToUpper(v)
		}
		_, err := time.Parse(time.RFC3339Nano, v)
		return err == nil
	case proto && len(s.Enum) > 0:
		return slices.ContainsFunc(s.Enum, func(name json.RawMessage) bool { return same(name, v) })
	case proto && numeric:
		return protoNumberFits(s.Format, v)
	case v == "null": // encoding/json's option "string" takes null in quotes
		return true
	case s.Format == "boolean":
		return v == "true" || v == "false"
	case s.Format == "json":
		return len(v) > 1 && v[0] == '"' && v[len(v)-1] == '"' && json.Valid([]byte(v))
	case numeric:
		// What encoding/json reads inside the quotes is strconv's form of a number, not JSON's.
		if v == "" || v[0] != '-' && (v[0] < '0' || v[0] > '9') {
			return false
		}
		if integerBits(s.Format) != 0 {
			return intFits(s.Format, v)
		}
		return floatFits(s.Format, v)
	}
	return true
}

// integerBits gives the width of an integer's format, 0 for another format.
func integerBits(format string) int {
	switch strings.TrimPrefix(format, "u") {
	case "int8":
		return 8
	case "int16":
		return 16
	case "int32":
		return 32
	case "int64":
		return 64
	}
	return 0
}

// intFits reads an integer as encoding/json does: without point or exponent.
func intFits(format, literal string) bool {
	var err error
	if strings.HasPrefix(format, "u") {
		_, err = strconv.ParseUint(literal, 10, integerBits(format))
	} else {
		_, err = strconv.ParseInt(literal, 10, integerBits(format))
	}
	return err == nil
}

// protoIntFits reads an integer as protojson does, and JSON Schema means it: 1.0 and 1e3 are whole numbers. Beyond 53
// bits a fraction goes unseen.
func protoIntFits(format, literal string) bool {
	bits := integerBits(format)
	if bits != 0 && !strings.ContainsAny(literal, ".eE") {
		return intFits(format, literal) || literal == "-0"
	}
	f, err := strconv.ParseFloat(literal, 64)
	if err != nil || f != math.Trunc(f) {
		return false
	}
	switch {
	case bits == 0:
		return true
	case strings.HasPrefix(format, "u"):
		return f >= 0 && f <= math.Ldexp(1, bits)
	}
	return f >= -math.Ldexp(1, bits-1) && f <= math.Ldexp(1, bits-1)
}

func floatFits(format, literal string) bool {
	bits := 64
	switch format {
	case "float":
		bits = 32
	case "double":
	default:
		return true
	}
	_, err := strconv.ParseFloat(literal, bits)
	return err == nil
}

// protoNumberFits reads a number in a string as protojson does.
func protoNumberFits(format, v string) bool {
	if integerBits(format) == 0 && slices.Contains([]string{"NaN", "Infinity", "-Infinity"}, v) {
		return true
	}
	if v == "" || v[0] != '-' && (v[0] < '0' || v[0] > '9') || !json.Valid([]byte(v)) || strings.TrimSpace(v) != v {
		return false
	}
	if integerBits(format) == 0 {
		return floatFits(format, v)
	}
	return protoIntFits(format, v)
}

// base64Fits: encoding/json takes the standard alphabet with padding; protojson both alphabets, padded or not.
func base64Fits(v string, proto bool) bool {
	encodings := []*base64.Encoding{base64.StdEncoding}
	if proto {
		encodings = append(encodings, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding)
	}
	return slices.ContainsFunc(encodings, func(e *base64.Encoding) bool {
		_, err := e.DecodeString(v)
		return err == nil
	})
}

// keyFits checks the key of a map. Both decoders read numbers in keys by strconv.
func keyFits(format, key string) bool {
	switch {
	case integerBits(format) != 0:
		return intFits(format, key)
	case format == "boolean":
		return key == "true" || key == "false"
	}
	return true
}

func outOfRange(literal string) bool {
	_, err := strconv.ParseFloat(literal, 64)
	return !strings.ContainsAny(literal, ".eE") || err != nil
}

// same reports whether a token is the value of an enum.
func same(v json.RawMessage, token json.Token) bool {
	switch token := token.(type) {
	case string:
		var s string
		return json.Unmarshal(v, &s) == nil && s == token
	case json.Number:
		var n json.Number
		return len(v) > 0 && v[0] != '"' && json.Unmarshal(v, &n) == nil && !less(n, token) && !less(token, n)
	case bool:
		return string(v) == strconv.FormatBool(token)
	}
	return false
}

func less(a, b json.Number) bool {
	x, errX := strconv.ParseFloat(a.String(), 64)
	y, errY := strconv.ParseFloat(b.String(), 64)
	return errX == nil && errY == nil && x < y
}

// got shows a scalar of the data, cut, and without characters that a terminal would obey.
func got(token json.Token) string {
	switch v := token.(type) {
	case string:
		return strconv.QuoteToGraphic(clip(v))
	case json.Number:
		return clip(v.String())
	case bool:
		return strconv.FormatBool(v)
	}
	return "null"
}

func list(values []json.RawMessage) string {
	const most = 10
	var b strings.Builder
	for i, v := range values {
		switch {
		case i == most:
			b.WriteString(", ...")
			return b.String()
		case i > 0:
			b.WriteString(", ")
		}
		var token any
		if json.Unmarshal(v, &token) == nil && len(v) > 0 && v[0] == '"' {
			b.WriteString(got(token))
			continue
		}
		b.WriteString(clip(string(v)))
	}
	return b.String()
}
