package program

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/cb02dfca/micro/internal/terminal"
)

// lineCost is what a line counts beside its length: the time, the endpoint and the request stand in the log as well, and
// a million short lines would be a log of many times what the program wrote.
const lineCost = 64

// sampled is of how many lines one is logged when LogRate is passed.
const sampled = 100

// readStderr logs standard error line by line, and keeps the last one. It always reads on, so that a log that is
// too much never holds the program up.
func (c *call) readStderr() {
	defer c.readEnd()
	buf, _ := c.p.buffers.Get().(*[]byte)
	if buf == nil {
		buf = new([]byte)
		*buf = make([]byte, 4<<10)
	}
	defer c.p.buffers.Put(buf)
	var l lines
	for {
		n, err := c.stderr.Read(*buf)
		l.feed((*buf)[:n], c.logLine)
		if err != nil {
			l.end(c.logLine)
			return
		}
	}
}

// logLine takes a line without its end. It is not retained.
func (c *call) logLine(line []byte) {
	line = bytes.TrimRight(line, " \t\r")
	if len(line) == 0 {
		return
	}
	c.last = terminal.Line(string(line[:min(len(line), MaxDetail)]))
	ok, dropped := c.p.flow.admit(time.Now(), len(line)+lineCost)
	log := c.p.o.Logger
	if dropped > 0 {
		log.Warn("the handler logs too much: lines were left out", "lines", dropped, "limit", fmt.Sprintf("%d MiB/s", LogRate>>20))
	}
	if ok {
		what := slog.String("endpoint", c.req.Endpoint)
		if c.req.Topic != "" {
			what = slog.String("topic", c.req.Topic)
		}
		log.LogAttrs(context.Background(), slog.LevelInfo, terminal.Line(string(line)), what, slog.String("request", c.req.ID))
	}
}

// lines splits what comes in pieces into lines, none longer than MaxLine.
type lines struct {
	part []byte // of a line that has not ended
}

func (l *lines) feed(data []byte, line func([]byte)) {
	for len(data) > 0 {
		piece, rest, whole := bytes.Cut(data, []byte{'\n'})
		if whole && len(l.part) == 0 {
			line(piece[:min(len(piece), MaxLine)])
		} else {
			l.part = append(l.part, piece[:min(len(piece), MaxLine-len(l.part))]...)
			if whole {
				line(l.part)
				l.part = l.part[:0]
			}
		}
		data = rest
	}
}

func (l *lines) end(line func([]byte)) {
	if len(l.part) > 0 {
		line(l.part)
	}
}

// flow bounds how much is logged in a second.
type flow struct {
	mu      sync.Mutex
	second  int64
	bytes   int
	over    int // lines in this second after the limit was passed
	dropped int // lines left out and not yet told of
}

// admit says whether a line of n bytes is logged, and how many were left out in the second before.
func (f *flow) admit(now time.Time, n int) (ok bool, dropped int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := now.Unix(); s != f.second {
		dropped = f.dropped
		f.second, f.bytes, f.over, f.dropped = s, 0, 0, 0
	}
	f.bytes += n
	if f.bytes <= LogRate {
		return true, dropped
	}
	f.over++
	if f.over%sampled == 1 {
		return true, dropped
	}
	f.dropped++
	return false, dropped
}

// cut gives at most n bytes of s, and no half of a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
