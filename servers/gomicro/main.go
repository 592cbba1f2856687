// Program gomicro is go-micro v5.30 in a process of its own, for the tests of what it and this project have of each other. Its first
// argument says what it is; the rest are of that. It takes orders by standard input, one a line, and answers each by a line of JSON, a string where it
// failed. What it tells besides is a word and JSON, such as "event {...}". It ends with its standard input.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
)

var out sync.Mutex

// say writes a line: a prefix, and a value or an error as JSON.
func say(prefix string, value any, err error) {
	out.Lock()
	defer out.Unlock()
	if err != nil {
		value = err.Error()
	}
	data, _ := json.Marshal(value)
	fmt.Println(prefix + string(data))
}

// orders says that the program is ready, and runs do for each order until there are no more.
func orders(do func(verb, rest string)) {
	say("", "ready", nil)
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		verb, rest, _ := strings.Cut(in.Text(), " ")
		do(verb, rest)
	}
}

var modes = map[string]func(args []string) error{
	"registry": runRegistry,
	"service":  runService,
	"client":   runClient,
	"broker":   runBroker,
	"rabbitmq": runRabbitMQ,
}

func main() {
	if err := modes[os.Args[1]](os.Args[2:]); err != nil {
		say("", nil, err)
		os.Exit(1)
	}
}
