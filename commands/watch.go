package commands

import (
	"context"
	"encoding/json"

	"github.com/cb02dfca/micro/pkg/registry"
)

// eventValue is the JSON form of one change of a watched listing.
type eventValue struct {
	Event string `json:"event"` // "added", "changed" or "removed"
	Item  any    `json:"item"`
}

// watchList prints the listing as rows that were added, and then each change, until ctx ends.
func watchList(ctx context.Context, in *invocation, o listOptions) error {
	if in.timeoutGiven {
		var cancel context.CancelFunc
		ctx, cancel = in.deadline(ctx)
		defer cancel()
	}
	ctx, stop := in.whileRead(ctx)
	defer stop()
	r, err := in.openRegistry(ctx)
	if err != nil {
		return err
	}
	heads, wide := listHeads(o)
	if wide > 0 && in.out.format != "wide" {
		heads = heads[:wide]
	}
	w := &listWatch{in: in, o: o, columns: len(heads), out: in.out.stream(append([]string{"EVENT"}, heads...))}
	w.out.grow([]string{"removed"}) // the longest of the first column, so that it does not move
	down := false
	for nodes, err := range r.Watch(ctx, o.watched()) {
		switch {
		case err != nil && !down:
			down = true
			in.warn("warning: %s; what is shown may be out of date", in.explainRegistry(err))
		case err == nil:
			down = false
			if err := w.show(ctx, nodes); err != nil {
				return unlessUnread(ctx, err)
			}
		}
	}
	return unlessUnread(ctx, w.out.close())
}

// watched is the service to watch; empty is all.
func (o listOptions) watched() string {
	if o.kind == "topics" || o.pattern == "" || isGlob(o.pattern) {
		return "" // topics' subscribers stand under two names
	}
	return o.pattern
}

// listWatch remembers what was shown.
type listWatch struct {
	in      *invocation
	o       listOptions
	out     *answerStream
	columns int
	shown   map[string]listRow
	order   []string
}

// show prints how nodes differ from what was shown.
func (w *listWatch) show(ctx context.Context, nodes []registry.Node) error {
	rows, err := w.o.rows(ctx, w.in, nodes)
	if err != nil {
		return err
	}
	now := make(map[string]listRow, len(rows))
	var order []string
	for _, r := range rows {
		now[r.key] = r
		order = append(order, r.key)
	}
	for _, key := range w.order {
		if _, still := now[key]; !still {
			if err := w.event(ctx, "removed", bad, w.shown[key]); err != nil {
				return err
			}
		}
	}
	for _, r := range rows {
		before, was := w.shown[r.key]
		switch {
		case !was:
			err = w.event(ctx, "added", good, r)
		case !sameValue(before.value, r.value):
			err = w.event(ctx, "changed", warn, r)
		}
		if err != nil {
			return err
		}
	}
	w.shown, w.order = now, order
	return nil
}

func (w *listWatch) event(ctx context.Context, event string, m mood, r listRow) error {
	cells := append([]cell{text(event).as(m)}, r.cells[:w.columns]...)
	return w.out.item(ctx, result{value: eventValue{event, r.value}, names: []string{r.name},
		table: &table{heads: w.out.heads, rows: [][]cell{cells}}})
}

// sameValue compares by the JSON form: what a change is, is what -o json would show.
func sameValue(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}
