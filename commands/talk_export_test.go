package commands

import (
	"bytes"
	"io"
)

// BuildBody makes a body of items without a schema.
func BuildBody(words []string) ([]byte, error) {
	var items []item
	for _, w := range words {
		it, err := parseItem(w)
		if err != nil {
			return nil, err
		}
		if it.op == "@" || it.op == ":=" && len(it.value) > 0 && it.value[0] == '@' {
			return nil, io.EOF // files are another test's
		}
		items = append(items, it)
	}
	return buildBody(items, nil)
}

// ReadLines and ReadValues give what the readers of standard input yield.
func ReadLines(r io.Reader) (lines []string, err error) {
	err = readLines(r, func(line []byte) bool { lines = append(lines, string(line)); return true })
	return lines, err
}

// ReadValues reads JSON values until the end or the first error.
func ReadValues(r io.Reader) (values []string, err error) {
	v := newValueReader(r)
	for {
		raw, err := v.next()
		if err != nil {
			return values, err
		}
		values = append(values, string(bytes.TrimSpace(raw)))
	}
}

// ColourJSON colours a JSON text.
func ColourJSON(text []byte) string { return palette{on: true}.json(text) }

// ReadRate reads --rate.
var ReadRate = readRate
