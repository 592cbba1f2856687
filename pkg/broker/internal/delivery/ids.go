package delivery

import (
	"crypto/rand"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/cb02dfca/micro/pkg/broker"
)

// Series makes the ids of a broker's messages: a random text that is the broker's, and a number. Its methods may be
// called concurrently.
type Series struct {
	base string
	last atomic.Uint64
}

// NewSeries gives a Series of 80 random bits.
func NewSeries() *Series { return &Series{base: rand.Text()[:16] + "-"} }

// Base is what all ids of the series begin with.
func (s *Series) Base() string { return s.base }

// Take takes n numbers, and gives the first.
func (s *Series) Take(n int) uint64 { return s.last.Add(uint64(n)) - uint64(n) + 1 }

// IDs gives the ids of ms: their own, and for those without one that of its place after the number first.
func (s *Series) IDs(ms []*broker.Message, first uint64) []string {
	ids := make([]string, len(ms))
	text := NewIDText(s.base, first)
	for i, m := range ms {
		if m.ID == "" {
			ids[i] = text.Next(len(ms) - i)
		} else {
			ids[i] = m.ID
			text.Skip()
		}
	}
	return ids
}

// IDText makes consecutive ids, with few allocations: a base and a number in the digits 0 to 9 and a to v.
type IDText struct {
	base int
	id   []byte // the next one
	text strings.Builder
}

// NewIDText begins with the number first.
func NewIDText(base string, first uint64) *IDText {
	id := make([]byte, 0, len(base)+16)
	return &IDText{base: len(base), id: strconv.AppendUint(append(id, base...), first, 32)}
}

// Next gives the next id. more is how many are wanted from now on, itself among them.
func (t *IDText) Next(more int) string {
	if t.text.Cap()-t.text.Len() < len(t.id) {
		t.text = strings.Builder{} // what was given out keeps the storage
		t.text.Grow((len(t.id) + 1) * min(more, 512))
	}
	begin := t.text.Len()
	t.text.Write(t.id)
	t.Skip()
	return t.text.String()[begin:]
}

// Skip passes the next id over.
func (t *IDText) Skip() {
	for i := len(t.id) - 1; i >= t.base; i-- {
		switch c := t.id[i]; c {
		case '9':
			t.id[i] = 'a'
		case 'v':
			t.id[i] = '0'
			continue
		default:
			t.id[i] = c + 1
		}
		return
	}
	t.id = append(t.id, 0)
	copy(t.id[t.base+1:], t.id[t.base:])
	t.id[t.base] = '1'
}
