//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/cb02dfca/micro/commands"
	"github.com/cb02dfca/micro/pkg/client"
)

// How often things are started and called, and how far a figure may be over its budget before the short form, which
// runs where nobody knows what else runs, refuses it.
const (
	starts        = 50
	idlers        = 5
	idleTime      = 2 * time.Second
	requests      = 300
	timeSlack     = 5
	memorySlack   = 1.25
	startGroup    = "Start-up and rest"
	requestsGroup = "A process per request"
)

// startUp takes the figures of programs that are alone.
func (c *cell) startUp(ctx context.Context) ([]figure, error) {
	var figures []figure
	for _, take := range []func(context.Context) (figure, error){c.version, c.registered, c.idle, c.perRequest} {
		f, err := take(ctx)
		if err != nil {
			return nil, err
		}
		figures = append(figures, f)
	}
	return figures, nil
}

// version takes the processor time of micro version.
func (c *cell) version(ctx context.Context) (figure, error) {
	var times sample
	for range starts {
		cmd := c.command(ctx, nil, "micro", "version")
		if err := cmd.Run(); err != nil {
			return figure{}, fmt.Errorf("micro version: %w", err)
		}
		times = append(times, cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
	}
	f := times.within(startGroup, fmt.Sprintf("`micro version`, user and system time, %d runs", starts), 0.5, 10*time.Millisecond)
	f.Slack = timeSlack
	return f, nil
}

// registered takes the time from exec to registered and listening.
func (c *cell) registered(ctx context.Context) (figure, error) {
	var times sample
	for range starts {
		s, err := c.hello(ctx, "hello", "hello")
		if err != nil {
			return figure{}, err
		}
		times = append(times, s.ready.Sub(s.started))
		s.kill()
	}
	f := times.within(startGroup, fmt.Sprintf("a service, from exec to registered and listening, %d starts", starts), 0.5, 15*time.Millisecond)
	f.Slack = timeSlack
	return f, nil
}

// idle takes the memory of a service that has nothing to do.
func (c *cell) idle(ctx context.Context) (figure, error) {
	var services []*service
	for range idlers {
		s, err := c.hello(ctx, "hello", "hello")
		if err != nil {
			return figure{}, err
		}
		services = append(services, s)
	}
	time.Sleep(idleTime) // what is measured is rest
	var sizes sample
	for _, s := range services {
		size, err := resident(s.cmd.Process.Pid)
		if err != nil {
			return figure{}, err
		}
		sizes = append(sizes, time.Duration(size))
		s.kill()
	}
	f := sized(startGroup, fmt.Sprintf("a service, resident after %v of rest, median of %d", idleTime, idlers), int64(sizes.quantile(0.5)), 14e6)
	f.Slack = memorySlack
	return f, nil
}

// resident gives a process's VmRSS in bytes.
func resident(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "VmRSS:" {
			kb, err := strconv.ParseInt(fields[1], 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no VmRSS", pid)
}

// perRequest takes what micro run costs beside the process that it starts: calls of it and starts of the same command
// take turns.
func (c *cell) perRequest(ctx context.Context) (figure, error) {
	at, err := c.serveCat(ctx)
	if err != nil {
		return figure{}, err
	}
	cl, done, err := dialer(ctx)
	if err != nil {
		return figure{}, err
	}
	defer done()
	body := []byte(`{"name":"` + strings.Repeat("x", 1000) + `"}`)
	var calls, direct sample
	for range requests {
		begun := time.Now()
		rsp, err := cl.Do(ctx, &client.Request{Service: "cat", Endpoint: "Say.Cat", ContentType: "application/json", Body: body}, client.Address(at))
		calls = append(calls, time.Since(begun))
		if err != nil {
			return figure{}, fmt.Errorf("call of cat: %w", err)
		}
		if !bytes.Equal(bytes.TrimSpace(rsp.Body), body) {
			return figure{}, fmt.Errorf("call of cat: the answer is %.100q", rsp.Body)
		}
		begun = time.Now()
		cmd := exec.CommandContext(ctx, "cat")
		cmd.Stdin = bytes.NewReader(body)
		out, err := cmd.Output()
		direct = append(direct, time.Since(begun))
		if err != nil {
			return figure{}, fmt.Errorf("cat: %w", err)
		}
		if !bytes.Equal(out, body) {
			return figure{}, fmt.Errorf("cat: the output is %.100q", out)
		}
	}
	cost := calls.quantile(0.5) - direct.quantile(0.5)
	return figure{
		Group: requestsGroup, What: fmt.Sprintf("`micro run -- cat`: p50 of a call less p50 of `cat` by os/exec, %d of each by turns", requests),
		Budget: "1 ms", Measured: fmt.Sprintf("%s (%s less %s)", ms(cost), ms(calls.quantile(0.5)), ms(direct.quantile(0.5))),
		Ratio: float64(cost) / float64(time.Millisecond), Slack: timeSlack,
	}, nil
}

// serveCat serves cat, and gives the address.
func (c *cell) serveCat(ctx context.Context) (string, error) {
	s, err := c.start(c.command(ctx, nil, "micro", "run", "-o", "json", "--quiet", "--name", "cat", "--endpoint", "Say.Cat", "--", "cat"))
	if err != nil {
		return "", err
	}
	var ready struct{ Address string }
	if err := json.NewDecoder(s.out).Decode(&ready); err != nil {
		return "", fmt.Errorf("micro run: %w", err)
	}
	return ready.Address, nil
}

// dialer gives a client of addresses.
func dialer(ctx context.Context) (*client.Client, func(), error) {
	known := commands.DefaultBackends()
	tr, err := known.Transports.Open(ctx, "http")
	if err != nil {
		return nil, nil, err
	}
	reg, err := known.Registries.Open(ctx, "memory")
	if err != nil {
		return nil, nil, err
	}
	c, err := client.New(client.WithTransport(tr), client.WithRegistry(reg))
	if err != nil {
		return nil, nil, err
	}
	return c, func() { _ = errors.Join(c.Close(), reg.Close()) }, nil
}
