package report

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/cb02dfca/micro/bench/internal/cell"
	"github.com/cb02dfca/micro/bench/internal/result"
)

// plot is where curves are drawn.
type plot struct {
	strings.Builder
	x, y scale
}

const (
	plotWidth, plotHeight          = 760, 360
	plotLeft, plotTop              = 64, 60
	plotInnerWidth, plotInnerLower = 560, 300 // the right edge is at plotLeft+plotInnerWidth, the lower at plotInnerLower
)

func (p *plot) px(v float64) float64 { return plotLeft + p.x(v)*plotInnerWidth }
func (p *plot) py(v float64) float64 { return plotInnerLower - p.y(v)*(plotInnerLower-plotTop) }

// curves draws the cost over one axis, both logarithmic: what grows in proportion is a straight line.
func curves(d *document, a axis, cells []cell.Cell) string {
	low, high := math.Inf(1), 0.0
	var peers []string
	for _, p := range d.Peers() {
		if !isCurve(d, p, cells) {
			continue
		}
		peers = append(peers, p)
		for _, c := range cells {
			if d.Has(c.String(), p) {
				v := d.Of(c.String(), p, (*result.Load).CPU).Median
				low, high = min(low, v), max(high, v)
			}
		}
	}
	low, high = math.Pow(10, math.Floor(math.Log10(low))), math.Pow(10, math.Ceil(math.Log10(high*1.01)))
	first, last := float64(max(1, a.value(cells[0]))), float64(a.value(cells[len(cells)-1]))
	p := &plot{x: logarithmic(first, last), y: logarithmic(low, high)}
	fmt.Fprintf(p, `<text class="title" x="8" y="22">%s</text><text class="soft" x="8" y="42">CPU in µs each, client and server; both scales logarithmic; lower is better</text>`+"\n", escape(a.title))
	p.grid(a, cells, low, high)
	for i, peer := range peers {
		p.curve(d, a, cells, peer, i)
	}
	return svg(plotWidth, plotHeight, a.title, p.String())
}

func (p *plot) grid(a axis, cells []cell.Cell, low, high float64) {
	for v := low; v <= high*1.001; v *= 10 {
		y := p.py(v)
		fmt.Fprintf(p, `<line class="grid" x1="%d" y1="%.1f" x2="%d" y2="%.1f"/><text class="soft" x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n",
			plotLeft, y, plotLeft+plotInnerWidth, y, plotLeft-8, y+4, strconv.FormatFloat(v, 'g', -1, 64))
	}
	for _, c := range cells {
		v := a.value(c)
		fmt.Fprintf(p, `<text class="soft" x="%.1f" y="%d" text-anchor="middle">%s</text>`, p.px(float64(max(1, v))), plotInnerLower+18, thousands(float64(v)))
	}
	fmt.Fprintf(p, `<line class="axis" x1="%d" y1="%d" x2="%d" y2="%d"/>`, plotLeft, plotInnerLower, plotLeft+plotInnerWidth, plotInnerLower)
	fmt.Fprintf(p, `<text class="soft" x="%d" y="%d" text-anchor="middle">%s</text>`+"\n", plotLeft+plotInnerWidth/2, plotInnerLower+40, a.name)
}

// colours of the curves, which both kinds of page show; the first is this project's.
var colours = []string{"#2da44e", "#bf8700", "#8250df", "#cf222e", "#0969da"}

func (p *plot) curve(d *document, a axis, cells []cell.Cell, peer string, i int) {
	colour := colours[i%len(colours)]
	var points []string
	var x, y float64
	for _, c := range cells {
		if !d.Has(c.String(), peer) {
			continue
		}
		x, y = p.px(float64(max(1, a.value(c)))), p.py(d.Of(c.String(), peer, (*result.Load).CPU).Median)
		points = append(points, fmt.Sprintf("%.1f,%.1f", x, y))
		fmt.Fprintf(p, `<circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"/>`, x, y, colour)
	}
	fmt.Fprintf(p, `<polyline fill="none" stroke="%s" stroke-width="2" points="%s"/><text x="%.1f" y="%.1f">%s</text>`+"\n",
		colour, strings.Join(points, " "), x+10, y+4, escape(peer))
}
