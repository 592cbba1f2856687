package jsonrpc_test

import (
	stdjson "encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/cb02dfca/micro/pkg/codec"
	"github.com/cb02dfca/micro/pkg/codec/codectest"
	"github.com/cb02dfca/micro/pkg/codec/json"
	"github.com/cb02dfca/micro/pkg/codec/jsonrpc"
	"github.com/cb02dfca/micro/pkg/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type hello struct {
	Name  string `json:"name"`
	Count int    `json:"count,omitempty"`
}

func values(c codec.Codec) codectest.Harness {
	return codectest.Harness{
		Codec: c,
		Values: []codectest.Value{
			{Name: "struct", In: hello{"John", 3}, New: func() any { return new(hello) }, Want: &hello{"John", 3}},
			{Name: "list", In: []int{1, 2}, New: func() any { return new([]int) }, Want: &[]int{1, 2}},
		},
		Foreign: []any{make(chan int)},
		Garbage: []codectest.Data{{Name: "half", Data: []byte(`{"name":`), New: func() any { return new(hello) }}},
	}
}

var bodies = [][]byte{[]byte(`{"name":"John","count":3}`), []byte(`{}`), []byte(`[1,2]`), []byte(`"x \" ] }"`), []byte(`7`), []byte(`null`), []byte(` {"a": [ {} ]}`)}

func TestConformance(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]*jsonrpc.Codec{"1.0": jsonrpc.New(json.New()), "2.0": jsonrpc.New2(json.New()), "plain": jsonrpc.Plain(json.New())} {
		t.Run(name, func(t *testing.T) {
			codectest.Run(t, values(c))
			codectest.RunEnvelope(t, c, bodies[:6]...)
		})
	}
}

func FuzzMessages(f *testing.F) {
	for _, request := range []string{
		`[{"jsonrpc":"2.0","method":"Say.Hello","params":["x",3],"id":1},{"jsonrpc":"2.0","method":"a"},1]`,
		`{"jsonrpc":"2.0","method":"S\u0061y.Hello","params":{"a":"\\\""},"id":"\""}`,
		`{"jsonrpc":"2.0","error":{"code":-32601,"message":"x","data":{"code":404,"detail":""}},"id":1}`,
	} {
		f.Add([]byte(request))
	}
	codectest.FuzzEnvelope(f, jsonrpc.New(json.New()), bodies...)
}

// FuzzRecognizes: what is recognized as a request is answered as one, unless it is a notification.
func FuzzRecognizes(f *testing.F) {
	for _, data := range []string{`{"method":"a","params":[],"id":1}`, `{"jsonrpc":"2.0","method":"a"}`, `[1,{"jsonrpc":"2.0"}]`, `{"jsonrpc":`, `{"a":{}}`, `"x"`, ` [ ] `} {
		f.Add([]byte(data))
	}
	c := jsonrpc.New(json.New())
	f.Fuzz(func(t *testing.T, data []byte) {
		if !c.Recognizes("application/json", data) {
			return
		}
		if answer := c.Answer(nil, data, service()); len(answer) > 0 && !stdjson.Valid(answer) || stdjson.Valid(data) && strings.Contains(string(answer), "-32700") {
			t.Errorf("%q is recognized, and answered with %q", data, answer)
		}
	})
}

// TestGoMicro: requests and answers as go-micro's versions wrote them.
func TestGoMicro(t *testing.T) {
	t.Parallel()
	c := jsonrpc.New(json.New())
	const body = `{"name":"John","count":3}`
	v1 := `{"method":"Say.Hello","params":[` + body + `],"id":"0"}`
	for version, request := range map[string]string{"v1, v2": v1 + "\n", "v5": `{"params":[` + body + `],"id":"0","method":"Say.Hello"}` + "\n"} {
		calls := &codectest.Calls{Answer: func(string, []byte) ([]byte, error) {
			return []byte(`{"msg":"Hello John from ` + version + `","seq":3}`), nil
		}}
		answer := c.Answer(nil, []byte(request), calls)
		if !slices.Equal(calls.Endpoints, []string{"Say.Hello"}) || !slices.Equal(calls.Bodies, []string{body}) {
			t.Errorf("%s: called %q with %q", version, calls.Endpoints, calls.Bodies)
		}
		if want := `{"id":"0","result":{"msg":"Hello John from ` + version + `","seq":3},"error":null}`; string(answer) != want {
			t.Errorf("%s: answered %s, want %s", version, answer, want)
		}
		if got, err := c.ReadResponse(append(answer, '\n'), 0); err != nil || !strings.HasPrefix(string(got), `{"msg":"Hello John`) {
			t.Errorf("%s: read %s, %v", version, got, err)
		}
	}
	if got, err := c.AppendRequest(nil, "Say.Hello", 0, []byte(body)); err != nil || string(got) != v1 {
		t.Errorf("sends %s, %v; want %s", got, err, v1)
	}
	want := `{"jsonrpc":"2.0","method":"Say.Hello","params":` + body + `,"id":"0"}`
	if got, err := jsonrpc.New2(json.New()).AppendRequest(nil, "Say.Hello", 0, []byte(body)); err != nil || string(got) != want {
		t.Errorf("sends %s, %v; want %s", got, err, want)
	}
	if got, err := c.AppendRequest([]byte("x"), "Say.Hello", 0, []byte(`{"a`)); !errors.Is(err, codec.ErrUnsupported) || string(got) != "x" {
		t.Errorf("a body that is no JSON: %s, %v", got, err)
	}
}

// service is what the requests of the tests call.
func service() *codectest.Calls {
	refuse := func(kind error, code status.Code, detail string) ([]byte, error) {
		e := &status.Error{ID: "test", Code: code, Detail: detail}
		if kind == nil {
			return nil, e
		}
		return nil, fmt.Errorf("%w: %w", kind, e)
	}
	return &codectest.Calls{
		Names: map[string][]string{"sub": {"minuend", "subtrahend"}},
		Answer: func(endpoint string, body []byte) ([]byte, error) {
			switch endpoint {
			case "sub", "echo":
				if len(body) == 0 {
					return nil, nil
				}
				return body, nil
			case "fail":
				return refuse(nil, 412, "not now")
			case "params":
				return refuse(codec.ErrBody, 400, "unknown field")
			case "broken":
				return []byte(`1},{`), nil
			}
			return refuse(codec.ErrEndpoint, 404, "no endpoint")
		},
	}
}

// failed is an answer of version 2.0 with an error.
func failed(code int, message, id string, status int, from string) string {
	texts := map[int]string{400: "Bad Request", 404: "Not Found", 412: "Precondition Failed", 413: "Request Entity Too Large", 500: "Internal Server Error"}
	return fmt.Sprintf(`{"jsonrpc":"2.0","error":{"code":%d,"message":%q,"data":{"id":%q,"code":%d,"detail":%q,"status":%q}},"id":%s}`,
		code, message, from, status, message, texts[status], id)
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	const own = "micro.codec"
	ok := func(result, id string) string { return `{"jsonrpc":"2.0","result":` + result + `,"id":` + id + `}` }
	two := func(rest string) string { return `{"jsonrpc":"2.0","method":"echo"` + rest + `}` }
	invalid := func(detail, id string) string { return failed(-32600, "the request "+detail, id, 400, own) }
	nested := strings.Repeat("[", 200) + strings.Repeat("]", 200)
	for name, tt := range map[string]struct{ in, want string }{
		// params
		"named":                      {two(`,"params":{"a":1},"id":1`), ok(`{"a":1}`, "1")},
		"one":                        {two(`,"params":[{"a":1}],"id":1`), ok(`{"a":1}`, "1")},
		"one scalar, no fields":      {two(`,"params":[7],"id":1`), ok(`7`, "1")},
		"several, no fields":         {two(`,"params":[1, 2],"id":1`), ok(`[1, 2]`, "1")},
		"none":                       {two(`,"id":1`), ok(`null`, "1")},
		"empty":                      {two(`,"params":[],"id":1`), ok(`null`, "1")},
		"null":                       {two(`,"params":null,"id":1`), ok(`null`, "1")},
		"white space":                {" {\n\"jsonrpc\" : \"2.0\" ,\t\"method\":\"echo\",\r\"params\" : [ { } ] , \"id\" : 1 } ", ok(`{ }`, "1")},
		"positional":                 {`{"jsonrpc":"2.0","method":"sub","params":[42, "a\"]"],"id":1}`, ok(`{"minuend":42,"subtrahend":"a\"]"}`, "1")},
		"positional, fewer":          {`{"jsonrpc":"2.0","method":"sub","params":[[42]],"id":1}`, ok(`{"minuend":[42]}`, "1")},
		"positional, more":           {`{"jsonrpc":"2.0","method":"sub","params":[1,2,3],"id":1}`, failed(-32602, "3 params, and the request has 2 fields", "1", 400, own)},
		"positional, one object":     {`{"jsonrpc":"2.0","method":"sub","params":[{"minuend":1}],"id":1}`, ok(`{"minuend":1}`, "1")},
		"an escaped method":          {`{"jsonrpc":"2.0","method":"e\u0063ho","params":[1],"id":1}`, ok(`1`, "1")},
		"an escaped member":          {`{"jsonrpc":"2.0","m\u0065thod":"echo","params":[1],"id":1}`, ok(`1`, "1")},
		"members that are not known": {two(`,"params":[1],"id":1,"auth":{"a":[]},"Method":"fail"`), ok(`1`, "1")},
		"deep":                       {two(`,"params":` + nested + `,"id":1`), ok(nested[1:len(nested)-1], "1")},
		// ids
		"id of text":          {two(`,"params":[1],"id":"a\"b"`), ok(`1`, `"a\"b"`)},
		"id of zero":          {two(`,"params":[1],"id":0`), ok(`1`, `0`)},
		"id with a fraction":  {two(`,"params":[1],"id":-1.50e2`), ok(`1`, `-1.50e2`)},
		"id null":             {two(`,"params":[1],"id":null`), ok(`1`, `null`)},
		"large id":            {two(`,"params":[1],"id":123456789012345678901234567890`), ok(`1`, `123456789012345678901234567890`)},
		"id of an object":     {two(`,"params":[1],"id":{}`), invalid("has an id that is neither a string nor a number nor null", "null")},
		"id of a list":        {two(`,"params":[1],"id":[1]`), invalid("has an id that is neither a string nor a number nor null", "null")},
		"id true":             {two(`,"params":[1],"id":true`), invalid("has an id that is neither a string nor a number nor null", "null")},
		"notification":        {two(`,"params":[1]`), ""},
		"failed notification": {`{"jsonrpc":"2.0","method":"nope"}`, ""},
		// version 1.0
		"1.0":              {`{"method":"echo","params":[{"a":1}],"id":7}`, `{"id":7,"result":{"a":1},"error":null}`},
		"1.0 text":         {`{"method":"echo","params":["x"],"id":"7"}`, `{"id":"7","result":"x","error":null}`},
		"1.0 notification": {`{"method":"echo","params":[1],"id":null}`, ""},
		"1.0 without id":   {`{"method":"echo","params":[1]}`, invalid("has no id, which version 1.0 wants", "null")},
		"1.0 named":        {`{"method":"echo","params":{},"id":1}`, `{"id":1,"result":null,"error":"{\"id\":\"micro.codec\",\"code\":400,\"detail\":\"the request has an object as params, which version 1.0 does not know\",\"status\":\"Bad Request\"}"}`},
		"1.0 failed":       {`{"method":"fail","params":[{}],"id":1}`, `{"id":1,"result":null,"error":"{\"id\":\"test\",\"code\":412,\"detail\":\"not now\",\"status\":\"Precondition Failed\"}"}`},
		"1.0 in a batch":   {`[{"method":"echo","params":[1],"id":1}]`, "[" + invalid(`is in a batch, and says not "jsonrpc": "2.0"`, "1") + "]"},
		// errors
		"failed":            {`{"jsonrpc":"2.0","method":"fail","id":1}`, failed(412, "not now", "1", 412, "test")},
		"unknown method":    {`{"jsonrpc":"2.0","method":"nope","id":1}`, failed(-32601, "no endpoint", "1", 404, "test")},
		"bad params":        {`{"jsonrpc":"2.0","method":"params","params":{},"id":1}`, failed(-32602, "unknown field", "1", 400, "test")},
		"a broken answer":   {`{"jsonrpc":"2.0","method":"broken","id":1}`, failed(-32603, "the answer of broken is no JSON", "1", 500, own)},
		"scalar params":     {two(`,"params":"bar","id":1`), invalid("has params that are neither an array nor an object", "1")},
		"method of numbers": {`{"jsonrpc":"2.0","method":1,"params":"bar"}`, invalid("has no method, or one that is no string", "null")},
		"no method":         {`{"jsonrpc":"2.0","id":1}`, invalid("has no method, or one that is no string", "1")},
		"empty method":      {`{"jsonrpc":"2.0","method":"","id":1}`, invalid("has an empty method", "1")},
		"wrong version":     {`{"jsonrpc":"1.5","method":"echo","id":1}`, invalid(`is of version "1.5": want 2.0, or none for 1.0`, "1")},
		"version, a number": {`{"jsonrpc":2.0,"method":"echo","id":1}`, invalid(`is of version 2.0: want 2.0, or none for 1.0`, "1")},
		"method twice":      {two(`,"method":"fail","id":1`), invalid("has the member method twice", "null")},
		"id twice":          {two(`,"id":1,"id":2`), invalid("has the member id twice", "null")},
		"no JSON":           {`{"jsonrpc":"2.0","method":"foobar, "params":"bar"`, failed(-32700, "the message is no JSON", "null", 400, own)},
		"nothing":           {``, failed(-32700, "the message is no JSON", "null", 400, own)},
		"two requests":      {two(`,"id":1`) + two(`,"id":2`), failed(-32700, "the message is no JSON", "null", 400, own)},
		"too deep":          {two(`,"params":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `,"id":1`), failed(-32700, "the message is no JSON", "null", 400, own)},
		"a number":          {`1`, invalid("is no object", "null")},
		// batches
		"batch": {`[` + two(`,"params":[1],"id":1`) + `,` + two(`,"params":[2]`) + `, ` + two(`,"params":[3],"id":1`) + `]`,
			`[` + ok(`1`, `1`) + `,` + ok(`3`, `1`) + `]`}, // ids may come twice
		"batch of notifications": {`[` + two(`,"params":[1]`) + `,` + two(``) + `]`, ""},
		"empty batch":            {`[ ]`, failed(-32600, "the batch is empty", "null", 400, own)},
		"broken batch":           {`[` + two(`,"id":1`) + `,{"jsonrpc":"2.0","method"]`, failed(-32700, "the message is no JSON", "null", 400, own)},
		"batch of others": {`[1,[],` + two(`,"params":[2],"id":2`) + `]`,
			`[` + invalid("is no object", "null") + `,` + invalid("is no object", "null") + `,` + ok(`2`, `2`) + `]`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := jsonrpc.New(json.New()).Answer(nil, []byte(tt.in), service())
			if string(got) != tt.want {
				t.Errorf("answered %.500s\nwant %.500s", got, tt.want)
			}
			if len(got) > 0 && !stdjson.Valid(got) {
				t.Errorf("%q is no JSON", got)
			}
		})
	}
}

func TestBatchIsBounded(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]int{jsonrpc.MaxBatch: jsonrpc.MaxBatch, jsonrpc.MaxBatch + 1: 0, 100_000: 0} {
		calls := service()
		batch := `[` + strings.TrimSuffix(strings.Repeat(`{"jsonrpc":"2.0","method":"echo","params":[1],"id":1},`, n), ",") + `]`
		got := jsonrpc.New(json.New()).Answer(nil, []byte(batch), calls)
		if len(calls.Bodies) != want {
			t.Errorf("a batch of %d ran %d", n, len(calls.Bodies))
		}
		if full := failed(-32600, "a batch of "+strconv.Itoa(n)+" calls, limit 256", "null", 413, "micro.codec"); want == 0 && string(got) != full {
			t.Errorf("a batch of %d: %.200s, want %s", n, got, full)
		}
	}
}

func TestReadResponse(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		in     string
		result string
		want   string        // in an error that is not the server's
		remote *status.Error // the server's
	}{
		"1.0":                    {`{"id":7,"result":{"a":1},"error":null}`, `{"a":1}`, "", nil},
		"2.0":                    {`{"jsonrpc":"2.0","result":[1],"id":"7"}`, `[1]`, "", nil},
		"null":                   {`{"jsonrpc":"2.0","result":null,"id":7}`, `null`, "", nil},
		"another id":             {`{"jsonrpc":"2.0","result":1,"id":8}`, "", `is to the call "8", want 7`, nil},
		"no id":                  {`{"jsonrpc":"2.0","result":1}`, "", "has no id", nil},
		"id null":                {`{"jsonrpc":"2.0","result":1,"id":null}`, "", `is to the call "null", want 7`, nil},
		"neither":                {`{"jsonrpc":"2.0","id":7}`, "", "neither result nor error", nil},
		"a list":                 {`[]`, "", "is no object", nil},
		"no JSON":                {`Not Found`, "", `is no JSON: "Not Found"`, nil},
		"result twice":           {`{"result":1,"result":2,"id":7}`, "", "twice", nil},
		"text":                   {`{"id":7,"result":null,"error":"plain text"}`, "", "", &status.Error{Code: 500, Detail: "plain text"}},
		"no text":                {`{"id":7,"result":null,"error":""}`, "", "", &status.Error{Code: 500, Detail: "the server tells of an error without a text"}},
		"object as text":         {`{"id":7,"result":null,"error":"{\"id\":\"x\",\"code\":409,\"detail\":\"d\",\"status\":\"Conflict\"}"}`, "", "", &status.Error{ID: "x", Code: 409, Detail: "d"}},
		"unknown method":         {`{"jsonrpc":"2.0","error":{"code":-32601,"message":"Method not found"},"id":7}`, "", "", &status.Error{Code: 404, Detail: "Method not found"}},
		"bad params":             {`{"jsonrpc":"2.0","error":{"code":-32602,"message":"m","data":[1]},"id":7}`, "", "", &status.Error{Code: 400, Detail: "m"}},
		"parse error":            {`{"jsonrpc":"2.0","error":{"code":-32700,"message":"m"},"id":null}`, "", "", &status.Error{Code: 400, Detail: "m"}},
		"application's":          {`{"jsonrpc":"2.0","error":{"code":-32050,"message":"m"},"id":7}`, "", "", &status.Error{Code: 500, Detail: "m (code -32050)"}},
		"ours":                   {`{"jsonrpc":"2.0","error":{"code":409,"message":"m","data":{"id":"x","code":409,"detail":"d","refused":true}},"id":7}`, "", "", &status.Error{ID: "x", Code: 409, Detail: "d", Refused: true}},
		"data of another's":      {`{"jsonrpc":"2.0","error":{"code":-32601,"message":"m","data":{"code":5}},"id":7}`, "", "", &status.Error{Code: 404, Detail: "m"}},
		"an error that is false": {`{"id":7,"error":false}`, "", "", &status.Error{Code: 500, Detail: "false"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			body, err := jsonrpc.New(json.New()).ReadResponse([]byte(tt.in), 7)
			got, remote := errors.AsType[*status.Error](err)
			switch {
			case string(body) != tt.result:
				t.Errorf("gave %q, want %q", body, tt.result)
			case tt.remote != nil:
				if !remote || !got.Remote || got.ID != tt.remote.ID || got.Code != tt.remote.Code || got.Detail != tt.remote.Detail || got.Refused != tt.remote.Refused {
					t.Errorf("error %+v, want %+v", err, tt.remote)
				}
			case tt.want == "" && err != nil, tt.want != "" && (err == nil || remote || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

// TestRecognizes: nothing that a service takes as a plain body is looked at, since that comes with an endpoint; what else comes
// without one says of itself what it is.
func TestRecognizes(t *testing.T) {
	t.Parallel()
	c := jsonrpc.New(json.New())
	for data, want := range map[string]bool{
		`{"jsonrpc":"2.0","method":"a"}`:               true,
		` [ {"jsonrpc" : "2.0"} ]`:                     true,
		`[1,{"jsonrpc":"2.0"}]`:                        true,
		`{"method":"a","params":[],"id":1}`:            true,
		`{"method":"a","params":{},"id":1}`:            false,
		`{"method":"a","params":[]}`:                   false,
		`{"method":"","params":[],"id":1}`:             false,
		`{"method":1,"params":[],"id":1}`:              false,
		`{"method":"a","params":[],"id":1,"name":"b"}`: false,
		`{"jsonrpc":"1.0"}`:                            false,
		`{"jsonrpc":2.0}`:                              false,
		`{"x":{"jsonrpc":"2.0"}}`:                      false,
		`{"Header":{},"Body":""}`:                      false,
		`[]`:                                           false,
		`"jsonrpc"`:                                    false,
		``:                                             false,
		`{"jsonrpc":"2.0"`:                             true, // to be told what is wrong with it
		`[{"jsonrpc":"2.0"},{]`:                        true,
		`{"method":"a","params":[`:                     false,
	} {
		if got := c.Recognizes("application/json", []byte(data)); got != want {
			t.Errorf("%s: %v", data, got)
		}
	}
	if c.Recognizes("application/octet-stream", []byte(`{"jsonrpc":"2.0"}`)) {
		t.Error("bytes were taken for JSON")
	}
}
