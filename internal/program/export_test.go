package program

// What the fuzz tests reach for: the parsers of what a program or a file says.
var (
	ParseError   = parseError
	ParseSidecar = parseSidecar
)

// SplitLines feeds data in pieces of size n.
func SplitLines(data []byte, n int) (out []string) {
	var l lines
	for len(data) > 0 {
		n := min(n, len(data))
		l.feed(data[:n], func(b []byte) { out = append(out, string(b)) })
		data = data[n:]
	}
	l.end(func(b []byte) { out = append(out, string(b)) })
	return out
}
