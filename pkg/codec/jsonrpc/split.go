package jsonrpc

import (
	"bytes"
	"encoding/json"
	"errors"
)

// What follows takes apart JSON that json.Valid has found to be right. encoding/json's own reading into structs does not do: it takes
// "Method" for "method", and of two members of one name the latter.

var errNoObject = errors.New("is no object")

// skipSpace gives the index of the first byte from i on that is no white space.
func skipSpace(data []byte, i int) int {
	for data[i] == ' ' || data[i] == '\t' || data[i] == '\n' || data[i] == '\r' {
		i++
	}
	return i
}

// skipText gives the index behind the string that begins at i.
func skipText(data []byte, i int) int {
	for i++; data[i] != '"'; i++ {
		if data[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// skipValue gives the index behind the value that begins at i.
func skipValue(data []byte, i int) int {
	switch data[i] {
	case '"':
		return skipText(data, i)
	case '{', '[':
		for depth := 0; ; {
			switch data[i] {
			case '"':
				i = skipText(data, i)
				continue
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			}
			i++
		}
	}
	for i < len(data) {
		switch data[i] {
		case ',', '}', ']', ' ', '\t', '\n', '\r':
			return i
		}
		i++
	}
	return i
}

// elements calls f for each element of an array, until f fails.
func elements(array []byte, f func(value []byte) error) error {
	i := skipSpace(array, 0)
	for i = skipSpace(array, i+1); array[i] != ']'; {
		end := skipValue(array, i)
		if err := f(array[i:end]); err != nil {
			return err
		}
		if i = skipSpace(array, end); array[i] == ',' {
			i = skipSpace(array, i+1)
		}
	}
	return nil
}

// members calls f for each member of an object, until f fails.
func members(object []byte, f func(name string, value []byte) error) error {
	i := skipSpace(object, 0)
	if object[i] != '{' {
		return errNoObject
	}
	for i = skipSpace(object, i+1); object[i] != '}'; {
		end := skipText(object, i)
		name := text(object[i:end])
		i = skipSpace(object, skipSpace(object, end)+1) // behind the colon
		end = skipValue(object, i)
		if err := f(name, object[i:end]); err != nil {
			return err
		}
		if i = skipSpace(object, end); object[i] == ',' {
			i = skipSpace(object, i+1)
		}
	}
	return nil
}

// text gives what a JSON string says.
func text(quoted []byte) string {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1 : len(quoted)-1])
	}
	var s string
	_ = json.Unmarshal(quoted, &s) // it is valid
	return s
}

func isText(value []byte) bool { return len(value) > 0 && value[0] == '"' }

func isNull(value []byte) bool { return string(value) == "null" }

// isID reports whether a value may be an id: a string, a number or null.
func isID(value []byte) bool {
	return isText(value) || isNull(value) || value[0] == '-' || value[0] >= '0' && value[0] <= '9'
}

// member is one that is known, and where its value goes.
type member struct {
	name  string
	value *[]byte
}

// known takes the members of an object that are known.
func known(object []byte, ms []member) error {
	return members(object, func(name string, value []byte) error {
		for _, m := range ms {
			if m.name != name {
				continue
			}
			if *m.value != nil {
				return errors.New("has the member " + name + " twice")
			}
			*m.value = value
		}
		return nil
	})
}
