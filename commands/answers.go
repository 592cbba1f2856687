package commands

import (
	"context"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/cb02dfca/micro/internal/terminal"
)

// answerStream writes an answer that comes bit by bit. It writes each item at once. With -o json the items are the elements
// of one array, so that the whole is one document.
type answerStream struct {
	p      *printer
	heads  []string
	widths []int
	items  int
	headed bool
}

// stream begins an answer of several items. heads are the heads of the table, where the items have rows.
func (p *printer) stream(heads []string) *answerStream {
	s := &answerStream{p: p, heads: heads, widths: make([]int, len(heads))}
	s.grow(heads)
	return s
}

// item writes one item; r.table holds its rows, whose heads and wide are ignored.
func (s *answerStream) item(ctx context.Context, r result) error {
	s.items++
	p := s.p
	switch {
	case p.query != nil && p.format == "json":
		return p.query.print(ctx, &printer{w: p.w, format: "jsonl", tty: p.tty}, r.value)
	case p.query != nil, p.format == "jsonl", p.format == "name":
		return p.print(ctx, r)
	case p.format == "json":
		return s.element(r.value)
	case p.format == "yaml":
		if _, err := io.WriteString(p.w, "---\n"); err != nil {
			return err
		}
		return p.yaml(r.value)
	case r.text != nil:
		return r.text(p.w, p.colors)
	case r.table == nil:
		return p.json(r.value, "")
	case p.format == "tsv" || p.format == "table" && !p.tty:
		return r.table.tsv(p.w, true)
	}
	return s.rows(r.table.rows)
}

// element writes one element of the array.
func (s *answerStream) element(v any) error {
	text, err := encodeJSON(v, "  ")
	if err != nil {
		return err
	}
	before := ",\n  "
	if s.items == 1 {
		before = "[\n  "
	}
	_, err = io.WriteString(s.p.w, before+strings.ReplaceAll(string(text), "\n", "\n  "))
	return err
}

// close ends the answer.
func (s *answerStream) close() error {
	if s.p.format != "json" || s.p.query != nil {
		return nil
	}
	end := "\n]\n"
	if s.items == 0 {
		end = "[]\n"
	}
	_, err := io.WriteString(s.p.w, end)
	return err
}

// rows writes rows under the heads. Columns grow with what comes, since later rows are not known yet.
func (s *answerStream) rows(rows [][]cell) error {
	lines := make([][]string, len(rows))
	for i, row := range rows {
		for _, c := range row {
			lines[i] = append(lines[i], terminal.Cell(c.form(true, s.p.now())))
		}
		s.grow(lines[i])
	}
	var b strings.Builder
	if !s.headed {
		s.write(&b, s.heads, s.p.colors.head)
		s.headed = true
	}
	for i, line := range lines {
		j := -1
		s.write(&b, line, func(text string) string {
			j++
			return s.p.colors.paint(rows[i][j].mood, text)
		})
	}
	_, err := io.WriteString(s.p.w, b.String())
	return err
}

func (s *answerStream) grow(line []string) {
	for j, text := range line {
		if j < len(s.widths) {
			s.widths[j] = max(s.widths[j], utf8.RuneCountInString(text))
		}
	}
}

func (s *answerStream) write(b *strings.Builder, line []string, paint func(string) string) {
	for j, text := range line {
		b.WriteString(paint(text))
		if j < len(line)-1 {
			b.WriteString(strings.Repeat(" ", max(0, s.widths[j]-utf8.RuneCountInString(text))+columnGap))
		}
	}
	b.WriteByte('\n')
}
