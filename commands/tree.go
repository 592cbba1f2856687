package commands

import (
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cb02dfca/micro/internal/suggest"
	"github.com/cb02dfca/micro/internal/terminal"
	"github.com/cb02dfca/micro/pkg/schema"
	"github.com/cb02dfca/micro/pkg/server"
)

// branch is a line of a tree, with lines below it that have no branch of their own, and branches.
type branch struct {
	text    string
	details []string
	sub     []branch
}

func (b branch) write(out *strings.Builder, prefix string, last bool) {
	knot, below := "├─ ", "│  "
	if last {
		knot, below = "└─ ", "   "
	}
	out.WriteString(prefix + knot + strings.TrimRight(b.text, " ") + "\n")
	for _, d := range b.details {
		out.WriteString(prefix + below + "  " + strings.TrimRight(d, " ") + "\n")
	}
	for i, s := range b.sub {
		s.write(out, prefix+below, i == len(b.sub)-1)
	}
}

// align pads the cells of rows to columns and joins them. Text from the network is made safe here. paint, where it is
// not nil, colours a cell after it was padded.
func align(rows [][]string, paint func(column int, text string) string) []string {
	var widths []int
	for _, row := range rows {
		for j := range row {
			row[j] = terminal.Cell(row[j])
			if j == len(widths) {
				widths = append(widths, 0)
			}
			widths[j] = max(widths[j], utf8.RuneCountInString(row[j]))
		}
	}
	out := make([]string, len(rows))
	for i, row := range rows {
		var b strings.Builder
		for j, text := range row {
			if widths[j] == 0 {
				continue
			}
			pad := strings.Repeat(" ", widths[j]-utf8.RuneCountInString(text)+columnGap)
			if paint != nil {
				text = paint(j, text)
			}
			b.WriteString(text + pad)
		}
		out[i] = strings.TrimRight(b.String(), " ")
	}
	return out
}

// draw writes the description as a tree for each version. up tells since when a node runs.
func (d *description) draw(w io.Writer, c palette, up func(time.Time) string) error {
	var out strings.Builder
	for i, v := range d.Versions {
		if i > 0 {
			out.WriteByte('\n')
		}
		head := c.bold(terminal.Line(strings.TrimSpace(d.Service + " " + v.Version)))
		out.WriteString(head)
		if len(v.Nodes) > 0 {
			out.WriteString(" · " + plural(len(v.Nodes), "node"))
		} else {
			out.WriteString(" · by " + terminal.Line(v.Source))
		}
		if v.Source == "registry" {
			out.WriteString(" · " + c.warn("as the registry has it"))
		}
		out.WriteByte('\n')
		var branches []branch
		if len(v.Nodes) > 0 {
			branches = append(branches, v.nodeBranch(c, up))
		}
		if len(v.Endpoints) > 0 {
			branches = append(branches, v.endpointBranch(c))
		}
		if len(v.Subscriptions) > 0 {
			branches = append(branches, v.subscriptionBranch(c))
		}
		for j, b := range branches {
			b.write(&out, "", j == len(branches)-1)
		}
	}
	_, err := io.WriteString(w, out.String())
	return err
}

func (v versionDescription) nodeBranch(c palette, up func(time.Time) string) branch {
	rows := make([][]string, len(v.Nodes))
	for i, n := range v.Nodes {
		rows[i] = []string{n.ID, n.Address, "", metaText(n.Metadata)}
		if n.Started != nil {
			rows[i][2] = up(*n.Started)
		}
	}
	return branch{text: "nodes", sub: leaves(align(rows, nameColumn(c)))}
}

// nameColumn colours the first column.
func nameColumn(c palette) func(int, string) string {
	return func(column int, text string) string {
		if column == 0 {
			return c.name(text)
		}
		return text
	}
}

func leaves(lines []string) []branch {
	out := make([]branch, len(lines))
	for i, l := range lines {
		out[i] = branch{text: l}
	}
	return out
}

func (v versionDescription) subscriptionBranch(c palette) branch {
	rows := make([][]string, len(v.Subscriptions))
	for i, s := range v.Subscriptions {
		rows[i] = []string{s.Topic, ""}
		if s.Queue != "" {
			rows[i][1] = "queue " + s.Queue
		}
	}
	return branch{text: "subscribes", sub: leaves(align(rows, nameColumn(c)))}
}

func (v versionDescription) endpointBranch(c palette) branch {
	rows := make([][]string, len(v.Endpoints))
	for i, e := range v.Endpoints {
		doc := ""
		if e.Doc != "" {
			doc = `"` + e.Doc + `"`
		}
		rows[i] = []string{e.Name, string(e.Kind), signature(e), doc}
	}
	b := branch{text: "endpoints", sub: leaves(align(rows, nameColumn(c)))}
	for i, e := range v.Endpoints {
		b.sub[i].details = fieldLines(e.Request, c)
	}
	return b
}

// signature writes the types of an endpoint: "A -> B", with "stream" where several messages go that way.
func signature(e server.Endpoint) string {
	req, rsp := or(e.RequestType, typeName(e.Request)), or(e.ResponseType, typeName(e.Response))
	if req == "" && rsp == "" {
		return ""
	}
	req, rsp = or(req, "any"), or(rsp, "any")
	switch e.Kind {
	case server.ServerStream, recordedStream:
		return req + " -> stream " + rsp
	case server.ClientStream:
		return "stream " + req + " -> " + rsp
	case server.Bidi:
		return req + " <-> " + rsp
	}
	return req + " -> " + rsp
}

func typeName(s *schema.Schema) string {
	if s == nil {
		return ""
	}
	return s.TypeName()
}

// fieldLines has a line for each field of a request: name, a star where it is required, type, default, doc.
func fieldLines(s *schema.Schema, c palette) []string {
	if s == nil {
		return nil
	}
	object := s.At()
	if object == nil {
		return nil
	}
	var rows [][]string
	for _, p := range object.Properties {
		field := s.At(p.Name)
		if field == nil {
			field = &schema.Schema{}
		}
		required := ""
		if slices.Contains(object.Required, p.Name) {
			required = "*"
		}
		def := first(p.Schema, field, func(s *schema.Schema) string { return string(s.Default) })
		if def != "" {
			def = "default " + def
		}
		doc := first(p.Schema, field, func(s *schema.Schema) string { return s.Description })
		if enum := enumText(field); enum != "" {
			doc = strings.TrimSpace(doc + " (" + enum + ")")
		}
		rows = append(rows, []string{p.Name, required, field.TypeName(), def, doc})
	}
	return align(rows, func(column int, text string) string {
		if column == 1 {
			return c.warn(text)
		}
		return text
	})
}

// first asks a field's own schema, then the one that it refers to.
func first(own, resolved *schema.Schema, get func(*schema.Schema) string) string {
	if own != nil {
		if v := get(own); v != "" {
			return v
		}
	}
	return get(resolved)
}

func enumText(s *schema.Schema) string {
	var values []string
	for _, v := range s.Enum {
		values = append(values, strings.Trim(string(v), `"`))
	}
	return strings.Join(values, ", ")
}

// closestNode finds the id that was meant; the first letters of one are enough, as long as no other has them.
func closestNode(id string, ids []string) string {
	match := ""
	for _, candidate := range ids {
		if id != "" && strings.HasPrefix(candidate, id) {
			if match != "" {
				return ""
			}
			match = candidate
		}
	}
	return or(match, suggest.Closest(id, ids))
}
