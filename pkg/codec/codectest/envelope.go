package codectest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/status"
)

// Calls is a codec.Calls that notes what it is called with, and answers what it is told. The zero Calls answers with the request.
type Calls struct {
	Endpoints []string
	Bodies    []string
	Answer    func(endpoint string, body []byte) ([]byte, error) // nil gives the body back
	Names     map[string][]string                                // the fields of requests
	storage   []byte
}

var _ codec.Calls = (*Calls)(nil)

// Call implements codec.Calls. Its answer is valid until the next one, and no longer.
func (c *Calls) Call(endpoint string, body []byte) ([]byte, error) {
	c.Endpoints, c.Bodies = append(c.Endpoints, endpoint), append(c.Bodies, string(body))
	answer, err := body, error(nil)
	if c.Answer != nil {
		answer, err = c.Answer(endpoint, body)
	}
	for i := range c.storage {
		c.storage[i] = 0xaa
	}
	c.storage = slices.Clone(answer)
	return c.storage, err
}

// Fields implements codec.Calls.
func (c *Calls) Fields(endpoint string) []string { return c.Names[endpoint] }

// RunEnvelope runs the suite of an RPC format. bodies are encoded by its Values; one at least, all of them different.
func RunEnvelope(t *testing.T, e codec.Envelope, bodies ...[]byte) {
	t.Helper()
	if len(bodies) == 0 {
		t.Fatal("codectest: no bodies")
	}
	for _, tc := range []struct {
		name string
		test func(*testing.T, codec.Envelope, [][]byte)
	}{
		{"round trip", testEnclosed},
		{"dst is kept", testEnclosedPrefix},
		{"errors", testEnclosedErrors},
		{"another call's answer", testOtherAnswer},
		{"data is not retained", testEnclosedRetained},
		{"concurrent use", testEnclosedConcurrent},
		{"broken data", testEnclosedBroken},
		{"alias", testEnclosedAlias},
	} {
		t.Run(tc.name, func(t *testing.T) { tc.test(t, e, bodies) })
	}
}

// enclosed gives a request.
func enclosed(t testing.TB, e codec.Envelope, id uint64, body []byte) []byte {
	t.Helper()
	data, err := e.AppendRequest(nil, "Say.Hello", id, body)
	if err != nil {
		t.Fatalf("AppendRequest(%.100q): %v", body, err)
	}
	return data
}

// exchange makes a call, and gives its answer.
func exchange(t testing.TB, e codec.Envelope, id uint64, body []byte, calls *Calls) ([]byte, error) {
	t.Helper()
	request := enclosed(t, e, id, body)
	answer := e.Answer(nil, request, calls)
	if n := len(calls.Bodies); n != 1 || calls.Endpoints[0] != "Say.Hello" || len(body) > 0 && calls.Bodies[0] != string(body) {
		t.Errorf("%.200q: called %q with %.200q", request, calls.Endpoints, calls.Bodies)
	}
	return e.ReadResponse(answer, id)
}

func testEnclosed(t *testing.T, e codec.Envelope, bodies [][]byte) {
	if _, ok := e.Values().(codec.Envelope); ok {
		t.Error("its Values are an Envelope")
	}
	for i, body := range append(slices.Clone(bodies), nil) {
		for _, id := range []uint64{0, uint64(i) + 1, 1 << 40, 1<<63 - 1} {
			got, err := exchange(t, e, id, body, new(Calls))
			if err != nil || len(body) > 0 && !bytes.Equal(got, body) {
				t.Errorf("%d: %.200q came back as %.200q, %v", id, body, got, err)
			}
		}
	}
}

func testEnclosedPrefix(t *testing.T, e codec.Envelope, bodies [][]byte) {
	for _, spare := range []int{0, 1 << 16} {
		dst := append(make([]byte, 0, 6+spare), "prefix"...)
		request, err := e.AppendRequest(dst, "Say.Hello", 1, bodies[0])
		request, ok := bytes.CutPrefix(request, []byte("prefix"))
		if err != nil || !ok || !bytes.Equal(request, enclosed(t, e, 1, bodies[0])) {
			t.Fatalf("AppendRequest: %q, %v", request, err)
		}
		request = bytes.Clone(request)
		answer, ok := bytes.CutPrefix(e.Answer(dst, request, new(Calls)), []byte("prefix"))
		if !ok || !bytes.Equal(answer, e.Answer(nil, request, new(Calls))) {
			t.Fatalf("Answer: %q", answer)
		}
	}
}

func testEnclosedErrors(t *testing.T, e codec.Envelope, bodies [][]byte) {
	for _, want := range []*status.Error{
		{ID: "greeter", Code: status.NotFound, Detail: "no such \"name\"\nat all <é>"},
		{ID: "greeter", Code: status.Unavailable, Detail: "stopping", Refused: true},
		{ID: "greeter", Code: 418},
	} {
		for _, wrap := range []error{nil, codec.ErrEndpoint, codec.ErrBody} {
			failed := error(want)
			if wrap != nil {
				failed = fmt.Errorf("%w: %w", wrap, want)
			}
			calls := &Calls{Answer: func(string, []byte) ([]byte, error) { return nil, failed }}
			body, err := exchange(t, e, 7, bodies[0], calls)
			got, ok := errors.AsType[*status.Error](err)
			if !ok || body != nil || !got.Remote || got.ID != want.ID || got.Code != want.Code || got.Detail != want.Detail || got.Refused != want.Refused {
				t.Errorf("%+v came back as %+v", want, err)
			}
		}
	}
}

func testOtherAnswer(t *testing.T, e codec.Envelope, bodies [][]byte) {
	answer := e.Answer(nil, enclosed(t, e, 1, bodies[0]), new(Calls))
	if got, err := e.ReadResponse(answer, 2); err == nil || !strings.HasPrefix(err.Error(), "codec/") {
		t.Errorf("the answer to the call 1 was taken for that to 2: %q, %v", got, err)
	}
}

func testEnclosedRetained(t *testing.T, e codec.Envelope, bodies [][]byte) {
	request := enclosed(t, e, 1, bodies[0])
	before := bytes.Clone(request)
	answer := e.Answer(nil, request, new(Calls))
	if !bytes.Equal(request, before) {
		t.Error("Answer changed its data")
	}
	clear(request)
	if got, err := e.ReadResponse(answer, 1); err != nil || !bytes.Equal(got, bodies[0]) {
		t.Errorf("the answer changed with the request: %q, %v", got, err)
	}
}

func testEnclosedConcurrent(t *testing.T, e codec.Envelope, bodies [][]byte) {
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for id := range uint64(50) {
				request, _ := e.AppendRequest(nil, "Say.Hello", id, bodies[0])
				if got, err := e.ReadResponse(e.Answer(nil, request, new(Calls)), id); err != nil || !bytes.Equal(got, bodies[0]) {
					t.Errorf("%q, %v", got, err)
				}
			}
		})
	}
	wg.Wait()
}

// testEnclosedBroken opens what is cut off or has a bit wrong. It may pass for something else, but must not panic, and an answer
// must be one.
func testEnclosedBroken(t *testing.T, e codec.Envelope, bodies [][]byte) {
	r := rand.New(rand.NewPCG(5, 6))
	for _, body := range bodies {
		request := enclosed(t, e, 1, body)
		answer := e.Answer(nil, request, new(Calls))
		for range 300 {
			for i, data := range [][]byte{request, answer} {
				bad := slices.Clone(data[:r.IntN(len(data))+1])
				bad[r.IntN(len(bad))] ^= 1 << r.IntN(8)
				if i == 0 {
					checkAnswer(t, e, bad)
				} else if _, err := e.ReadResponse(bad, 1); err != nil && err.Error() == "" {
					t.Errorf("%q: an error without a text", bad)
				}
			}
		}
	}
}

// checkAnswer has a request answered, whatever it is. One that runs nothing is not answered as if it had.
func checkAnswer(t *testing.T, e codec.Envelope, request []byte) {
	t.Helper()
	calls := &Calls{Answer: func(string, []byte) ([]byte, error) { return nil, nil }}
	answer := e.Answer(nil, request, calls)
	if len(calls.Endpoints) > 0 {
		return
	}
	if len(answer) == 0 || answer[0] == '[' {
		return // to notifications, or a batch
	}
	for _, id := range []uint64{0, 1} {
		if body, err := e.ReadResponse(answer, id); err == nil {
			t.Errorf("%.200q ran nothing, and was answered %.200q: %q", request, answer, body)
		}
	}
}

func testEnclosedAlias(t *testing.T, e codec.Envelope, bodies [][]byte) {
	const other = "application/x-other"
	alias, ok := codec.Alias(e, other).(codec.Envelope)
	if !ok || alias.ContentType() != other {
		t.Fatalf("the alias is %T", alias)
	}
	if got, err := exchange(t, alias, 1, bodies[0], new(Calls)); err != nil || !bytes.Equal(got, bodies[0]) {
		t.Errorf("%q, %v", got, err)
	}
}

// FuzzEnvelope answers any request and reads any answer.
func FuzzEnvelope(f *testing.F, e codec.Envelope, bodies ...[]byte) {
	for _, body := range bodies {
		request := enclosed(f, e, 1, body)
		f.Add(request)
		f.Add(e.Answer(nil, request, new(Calls)))
		f.Add(e.Answer(nil, request[:len(request)/2], new(Calls)))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		before := bytes.Clone(data)
		checkAnswer(t, e, data)
		_ = e.Answer(nil, data, &Calls{Names: map[string][]string{"Say.Hello": {"name", "times"}}})
		if body, err := e.ReadResponse(data, 1); err != nil && body != nil {
			t.Errorf("%q gave %q beside %v", data, body, err)
		}
		if rec, ok := e.(codec.Recognizer); ok {
			_ = rec.Recognizes("application/json", data)
		}
		if !bytes.Equal(data, before) {
			t.Errorf("%q became %q", before, data)
		}
	})
}
