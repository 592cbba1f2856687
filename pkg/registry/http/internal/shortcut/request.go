package shortcut

import (
	"bytes"
	"net"
	"strconv"
)

// Request is one that may be answered here. Its bytes are the connection's: they hold until the Answer returns. A header that did not come is
// empty.
type Request struct {
	Path, Query   []byte // as they came, without "?"
	Host          []byte
	ContentType   []byte
	Authorization []byte
	Lease         []byte // Micro-Lease
	Body          []byte
	Remote        net.Addr
}

var (
	lineEnd = []byte("\r\n")
	headEnd = []byte("\r\n\r\n")
	method  = []byte("PUT ")
	version = []byte(" HTTP/1.1")
)

// maxBody is above all that fits into one Read.
const maxBody = 1 << 20

// parse reads a request that may be answered here, and gives the length of it with its body: 0 where its head is not whole. What has a head that
// is not known through and through is none.
func parse(data []byte) (r Request, length int, ok bool) {
	if have := min(len(data), len(method)); !bytes.Equal(data[:have], method[:have]) {
		return r, 0, false
	}
	end := bytes.Index(data, headEnd)
	if end < 0 {
		return r, 0, !endsOtherwise(data)
	}
	line, fields := cut(data[:end])
	target, ok := bytes.CutSuffix(line[len(method):], version)
	if !ok || !plain(target) || bytes.IndexByte(target, ' ') >= 0 {
		return r, 0, false
	}
	r.Path, r.Query, _ = bytes.Cut(target, []byte("?"))
	var size, agent, accept, encoding, kept []byte
	for len(fields) > 0 {
		var field []byte
		field, fields = cut(fields)
		name, value, ok := split(field)
		if !ok {
			return r, 0, false
		}
		var into *[]byte
		switch {
		case is(name, "host"):
			into = &r.Host
		case is(name, "content-type"):
			into = &r.ContentType
		case is(name, "content-length"):
			into = &size
		case is(name, "authorization"):
			into = &r.Authorization
		case is(name, "micro-lease"):
			into = &r.Lease
		case is(name, "user-agent"):
			into = &agent
		case is(name, "accept"):
			into = &accept
		case is(name, "accept-encoding"):
			into = &encoding
		case is(name, "connection") && is(value, "keep-alive"):
			into = &kept
		default:
			return r, 0, false
		}
		if *into != nil || len(value) == 0 {
			return r, 0, false
		}
		*into = value
	}
	body, ok := number(size)
	if !ok || body > maxBody || !validHost(r.Host) {
		return r, 0, false
	}
	begin := end + len(headEnd)
	length = begin + int(body)
	if length <= len(data) {
		r.Body = data[begin:length]
	}
	return r, length, true
}

// size gives the length of the request that data begins with, its body and all, where its head is whole and leaves no doubt.
func size(data []byte) (length int64, ok bool) {
	end := bytes.Index(data, headEnd)
	if end < 0 {
		return 0, false
	}
	line, fields := cut(data[:end])
	if !plain(line) || !bytes.HasSuffix(line, version) {
		return 0, false
	}
	sized := false
	body := int64(0)
	for len(fields) > 0 {
		var field []byte
		field, fields = cut(fields)
		name, value, ok := split(field)
		switch {
		case !ok, is(name, "transfer-encoding"), is(name, "upgrade"), is(name, "expect"), is(name, "trailer"):
			return 0, false
		case is(name, "content-length"):
			if body, ok = number(value); !ok || sized {
				return 0, false
			}
			sized = true
		}
	}
	return int64(end+len(headEnd)) + body, true
}

// cut cuts the first line off.
func cut(head []byte) (line, rest []byte) {
	line, rest, _ = bytes.Cut(head, lineEnd)
	return line, rest
}

// endsOtherwise reports whether a line ends with a line feed alone, which net/http takes.
func endsOtherwise(head []byte) bool {
	for {
		line, rest, ok := bytes.Cut(head, []byte("\n"))
		if !ok {
			return false
		}
		if !bytes.HasSuffix(line, []byte("\r")) {
			return true
		}
		head = rest
	}
}

// validHost reports whether a Host is a name or an address, with a port or without.
func validHost(host []byte) bool {
	for _, c := range host {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_' && c != ':' && c != '[' && c != ']' {
			return false
		}
	}
	return len(host) > 0
}

// split gives the name and the value of a field, where both are beyond doubt: no folded line, no control character, no white space around a name.
func split(field []byte) (name, value []byte, ok bool) {
	name, value, ok = bytes.Cut(field, []byte(":"))
	if !ok || len(name) == 0 || !plain(field) {
		return nil, nil, false
	}
	for _, c := range name {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' {
			return nil, nil, false
		}
	}
	return name, bytes.Trim(value, " "), true
}

// plain reports whether text is of printing ASCII characters and blanks.
func plain(text []byte) bool {
	for _, c := range text {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}

// is compares with a word in lower case.
func is(text []byte, word string) bool {
	if len(text) != len(word) {
		return false
	}
	for i, c := range text {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != word[i] {
			return false
		}
	}
	return true
}

// number reads a length: digits alone.
func number(text []byte) (int64, bool) {
	if len(text) == 0 || len(text) > 18 {
		return 0, false
	}
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(string(text), 10, 64)
	return n, err == nil
}
