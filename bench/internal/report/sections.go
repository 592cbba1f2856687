package report

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/cb02dfca/micro/bench/internal/cell"
	"github.com/cb02dfca/micro/bench/internal/result"
)

func (d *document) streams() {
	d.flow("Streams from the server", "Server-streaming, as fast as it goes; a message received is what is counted.",
		"messages/s", d.chosen(func(c cell.Cell) bool { return c.Kind == cell.Stream }))
}

func (d *document) fanout() {
	d.flow("Publish and subscribe", "One publisher and its subscribers in another process, each with a connection of its own, as fast as it goes; a message at a subscriber's handler is what is counted. A Publish has 4,000 messages, and to 1,000 subscribers 64. `micro`'s subscribers agree that the storage of messages is used again (`broker.Reuse`), those of `micro-keep` may keep them, which is the default. `nats-micro` is NATS core, with its server in the subscribers' process. Here a publisher waits for the subscribers' acknowledgements, with NATS it waits for the server's.",
		"deliveries/s", d.chosen(func(c cell.Cell) bool { return flowing(c) && c.Kind == cell.Fanout }))
}

// flowing tells the cells that are compared of messages one way from those of the curves.
func flowing(c cell.Cell) bool {
	return c.Kind == cell.Stream || c.Kind == cell.Fanout && (c.Conns == 1 || c.Conns == 16)
}

// flow is a table of cells that have no latency.
func (d *document) flow(title, note, rate string, cells []cell.Cell) {
	var rows [][]string
	for _, c := range cells {
		text := c.String()
		for _, peer := range d.Peers() {
			if !d.Has(text, peer) {
				continue
			}
			cpu, allocs := d.Of(text, peer, (*result.Load).CPU), func(l *result.Load) float64 { return clientMallocs(l) + serverMallocs(l) }
			rows = append(rows, []string{c.Label(), "`" + peer + "`", thousands(d.Of(text, peer, (*result.Load).Rate).Median),
				figure(cpu.Median), figure(cpu.Lower) + " to " + figure(cpu.Upper), figure(d.Of(text, peer, allocs).Median)})
		}
	}
	d.table(title, note, []string{"cell", "peer", rate, "µs CPU each", "quartiles", "allocs each"}, rows)
	for _, c := range cells {
		d.chart(barsName(c), c.Label())
	}
}

// axis is one way in which a load grows.
type axis struct {
	name, title string
	of          func(cell.Cell) bool
	value       func(cell.Cell) int
}

// axes are the scale curves. The cells of one differ in nothing but its value.
var axes = []axis{
	{"callers", "Callers, on 1 connection, 1 KiB", func(c cell.Cell) bool {
		return closed(c) && c.Payload == 1<<10 && c.Conns == 1 && c.Callers != 64
	}, func(c cell.Cell) int { return c.Callers }},
	{"connections", "Connections, 1000 callers, 1 KiB", func(c cell.Cell) bool {
		return closed(c) && c.Payload == 1<<10 && c.Callers == 1000
	}, func(c cell.Cell) int { return c.Conns }},
	{"payload", "Payload in bytes, 8 callers, 1 connection", func(c cell.Cell) bool {
		return closed(c) && c.Callers == 8 && c.Conns == 1
	}, func(c cell.Cell) int { return c.Payload }},
	{"nodes", "Nodes of the service, 64 callers, 1 KiB", func(c cell.Cell) bool { return c.Nodes > 0 && c.Callers > 1 }, func(c cell.Cell) int { return c.Nodes }},
	{"selection", "Nodes of the service: choosing one, and taking note of a change of one", func(c cell.Cell) bool { return c.Nodes > 0 && c.Callers == 1 }, func(c cell.Cell) int { return c.Nodes }},
	{"endpoints", "Endpoints in use, 64 callers, 1 KiB", func(c cell.Cell) bool { return c.Endpoints > 0 }, func(c cell.Cell) int { return c.Endpoints }},
	{"subscribers", "Subscribers, 1 publisher, 128 B", func(c cell.Cell) bool {
		return c.Kind == cell.Fanout && c.Conns != 16
	}, func(c cell.Cell) int { return c.Conns }},
}

func closed(c cell.Cell) bool {
	return c.Kind == cell.Call && c.Rate == 0 && c.Nodes == 0 && c.Endpoints == 0
}

// on gives the cells of an axis in order; fewer than three are no curve.
func (d *document) on(a axis) []cell.Cell {
	cells := d.chosen(a.of)
	slices.SortFunc(cells, func(x, y cell.Cell) int { return a.value(x) - a.value(y) })
	if len(cells) < 3 {
		return nil
	}
	return cells
}

// curves tells what each of the things that may grow costs.
func (d *document) curves() {
	for _, a := range axes {
		cells := d.on(a)
		header := []string{"peer"}
		for _, c := range cells {
			header = append(header, thousands(float64(a.value(c))))
		}
		var rows [][]string
		for _, peer := range d.Peers() {
			if !isCurve(d, peer, cells) {
				continue
			}
			row := []string{"`" + peer + "`"}
			for _, c := range cells {
				row = append(row, figure(d.Of(c.String(), peer, (*result.Load).CPU).Median))
			}
			rows = append(rows, row)
		}
		d.table(a.title, "µs CPU of both processes for a call, or a delivery; a choice, or a change.", header, rows)
		if len(rows) > 0 {
			d.chart(curveName(a), a.title)
		}
	}
}

// isCurve reports whether a peer was measured in more than two cells of an axis: those of other tables lie on some.
func isCurve(d *document, peer string, cells []cell.Cell) bool {
	n := 0
	for _, c := range cells {
		if d.Has(c.String(), peer) {
			n++
		}
	}
	return n > 2
}

func (d *document) idle() {
	var rows [][]string
	for _, c := range d.chosen(func(c cell.Cell) bool { return c.Kind == cell.Idle }) {
		for _, peer := range d.Peers() {
			if !d.Has(c.String(), peer) {
				continue
			}
			each := d.Of(c.String(), peer, func(l *result.Load) float64 { return float64(l.Server.Usage.RSS-l.Idle) / float64(c.Conns) })
			total := d.Of(c.String(), peer, func(l *result.Load) float64 { return float64(l.Server.Usage.RSS) })
			rows = append(rows, []string{c.Label(), "`" + peer + "`", figure(each.Median), mib(total.Median)})
		}
	}
	d.table("Connections at rest", "Each has carried one call of 1 KiB, two seconds before.",
		[]string{"cell", "peer", "server's RSS, KiB for each", "MiB in all"}, rows)
}

func (d *document) starts() {
	var rows [][]string
	for _, program := range slices.Sorted(keys(d.Starts)) {
		var listening, rss []float64
		var size int64
		for _, s := range d.Starts[program] {
			listening, rss, size = append(listening, s.Listening), append(rss, float64(s.RSS)), s.Size
		}
		l := result.Summarize(listening)
		rows = append(rows, []string{"`" + program + "`", figure(float64(size) / 1e6), figure(l.Median),
			figure(l.Lower) + " to " + figure(l.Upper), mib(result.Summarize(rss).Median)})
	}
	d.table("Size and start", "The bench's own programs, stripped, each with server and client of the peer and the harness; `raw` is little else than that. From before fork until the address was read; resident after a second of rest.",
		[]string{"program", "MB", "ms to listening", "quartiles", "RSS MiB"}, rows)
}

// figure writes a number with three digits that matter.
func figure(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "–"
	case a >= 1000:
		return thousands(v)
	case a >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

// thousands writes a whole number with commas.
func thousands(v float64) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return "–"
	}
	s := strconv.FormatInt(int64(math.Round(v)), 10)
	var groups []string
	for len(s) > 3 {
		groups = append([]string{s[len(s)-3:]}, groups...)
		s = s[:len(s)-3]
	}
	return strings.Join(append([]string{s}, groups...), ",")
}

func mib(kib float64) string { return fmt.Sprintf("%.1f", kib/1024) }

func clientPeak(l *result.Load) float64 { return float64(l.Client.Usage.PeakRSS) }
func serverPeak(l *result.Load) float64 { return float64(l.Server.Usage.PeakRSS) }
