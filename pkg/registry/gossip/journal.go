package gossip

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"sync"
	"time"
)

// journal tells a logger what happens. Whoever can send to a member could make it write without end: so most of it is
// bounded.
type journal struct {
	*slog.Logger

	mu    sync.Mutex
	loud  bound // of warnings, and worse
	quiet bound // of the rest
}

// bound counts the lines of a second.
type bound struct {
	second  time.Time
	lines   int
	dropped int
}

const linesPerSecond = 5

func newJournal(l *slog.Logger) *journal {
	if l == nil {
		l = slog.New(slog.DiscardHandler)
	}
	return &journal{Logger: l}
}

// complain warns, a few times a second at most.
func (j *journal) complain(msg string, args ...any) { j.bounded(slog.LevelWarn, msg, args...) }

func (j *journal) bounded(level slog.Level, msg string, args ...any) {
	if !j.Enabled(context.Background(), level) {
		return
	}
	b := &j.quiet // what need not be seen to takes no place of what ought to be
	if level >= slog.LevelWarn {
		b = &j.loud
	}
	j.mu.Lock()
	now := time.Now()
	if now.Sub(b.second) >= time.Second {
		b.second, b.lines = now, 0
	}
	if b.lines++; b.lines > linesPerSecond {
		b.dropped++
		j.mu.Unlock()
		return
	}
	if b.dropped > 0 {
		args = append(args, "dropped", b.dropped)
		b.dropped = 0
	}
	j.mu.Unlock()
	j.Log(context.Background(), level, msg, args...)
}

// library gives memberlist a logger of its kind. What it calls an error is one packet or connection that failed: it tries again.
func (j *journal) library() *log.Logger { return log.New(libraryLog{j}, "", 0) }

type libraryLog struct{ *journal }

var libraryLevels = []struct {
	mark  string
	level slog.Level
}{
	{"[ERR] ", slog.LevelWarn}, {"[ERROR] ", slog.LevelWarn}, {"[WARN] ", slog.LevelInfo}, {"[INFO] ", slog.LevelDebug}, {"[DEBUG] ", slog.LevelDebug},
}

// Write takes a line of memberlist's.
func (l libraryLog) Write(line []byte) (int, error) {
	level, text := slog.LevelWarn, bytes.TrimSpace(line)
	for _, known := range libraryLevels {
		if rest, ok := bytes.CutPrefix(text, []byte(known.mark)); ok {
			level, text = known.level, rest
			break
		}
	}
	if l.Enabled(context.Background(), level) {
		l.bounded(level, string(bytes.TrimPrefix(text, []byte("memberlist: "))), "from", "memberlist")
	}
	return len(line), nil
}
