package commands

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/cb02dfca/micro/internal/opener"
	"github.com/cb02dfca/micro/internal/suggest"
	"github.com/cb02dfca/micro/pkg/client"
	"github.com/cb02dfca/micro/pkg/registry"
	"github.com/cb02dfca/micro/pkg/selector"
	"github.com/cb02dfca/micro/pkg/status"
	"github.com/cb02dfca/micro/pkg/transport"
)

// This file turns the errors of the framework into what a user is told. What is not known here comes back as it is.

// explainRegistry tells of an error of the registry itself.
func (in *invocation) explainRegistry(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, opener.ErrUnknown):
		return usage("registry %q: %s", redacted(in.registryName()), err).because(err)
	case errIs(err, registry.ErrUnavailable, selector.ErrUnavailable, syscall.ECONNREFUSED):
		place := in.registryPlace()
		reason, answered := whyUnavailable(place, dialReason(err))
		f := fail(exitUnavailable, "registry %s is not answering: %s", place, reason).because(err)
		if answered {
			f.what = "registry " + place + ": " + reason
		}
		if strings.HasPrefix(in.settings.registry, "http://") || strings.HasPrefix(in.settings.registry, "https://") {
			f = f.hint("start one", "micro registry")
		}
		if in.registryName() == "default" {
			return f.hint("use another", "--registry local")
		}
		return f.hint("use another", "--registry default")
	}
	return err
}

// whyUnavailable is what a reason says of the server at place, without what was being done, which the command says, and without
// place itself: that it is not answering, and why, or what it answered.
func whyUnavailable(place, reason string) (why string, answered bool) {
	if i := strings.LastIndex(reason, place+" is not answering: "); i >= 0 {
		return reason[i+len(place+" is not answering: "):], false
	}
	if i := strings.LastIndex(reason, "unavailable: "+place+": "); i >= 0 {
		return reason[i+len("unavailable: "+place+": "):], true
	}
	return strings.CutPrefix(reason, place+": ")
}

// registryPlace is the registry's name; a server is named by its address alone.
func (in *invocation) registryPlace() string {
	return or(hostOf(in.registryShown()), in.registryShown())
}

// hostOf is what a URL has for a host, with the login as the URL shows it.
func hostOf(name string) string {
	u, err := url.Parse(name)
	switch {
	case err != nil:
		return ""
	case u.User != nil:
		return u.User.String() + "@" + u.Host
	}
	return u.Host
}

// explain tells of an error of a call, a stream or a question to a node.
func (in *invocation) explain(ctx context.Context, err error) error {
	var ce *client.Error
	if !errors.As(err, &ce) {
		return in.explainRegistry(err)
	}
	var st *status.Error
	remote := errors.As(ce.Err, &st) && st.Remote
	switch {
	case interrupted(ctx):
		return err
	case errors.Is(ce.Err, selector.ErrNotFound):
		return serviceNotFound(in, ce.Service, in.known(ctx, ce.Elapsed))
	case errors.Is(ce.Err, selector.ErrNoneMatch):
		return noneMatches(ce, in.known(ctx, ce.Elapsed).of(ce.Service)).because(err)
	case errors.Is(ce.Err, selector.ErrUnavailable):
		return in.explainRegistry(ce.Err)
	case remote && st.Code == status.NotFound && in.lacksEndpoint(ctx, ce, st):
		return in.endpointNotFound(ctx, ce.Service, ce.Endpoint, lastNode(ce)).because(err)
	case remote && st.Refused, transport.NotSent(ce.Err):
		return nobodyAnswered(ce).because(err)
	case remote:
		return in.remoteFailure(ce, st).because(err)
	case errIs(ce.Err, context.DeadlineExceeded, syscall.ETIMEDOUT) || st != nil && st.Code == status.DeadlineExceeded:
		return timeoutFailure(ctx, ce, in.timeout).because(err)
	case errors.Is(ce.Err, transport.ErrTooLarge):
		return usage("%s: the request is too large: %s", what(ce), trimPackage(ce.Err.Error())).because(err)
	}
	if hungUp(ce.Err) {
		return withNode(fail(exitUnavailable, "%s: the node closed the connection before the answer was whole", what(ce)).because(err), ce)
	}
	f := fail(codeOf(ce.Err), "%s: %s", what(ce), dialReason(ce.Err)).because(err)
	return withNode(f, ce)
}

func what(ce *client.Error) string { return strings.TrimSpace(ce.Service + " " + ce.Endpoint) }

func lastNode(ce *client.Error) registry.Node {
	if n := len(ce.Attempts); n > 0 {
		return ce.Attempts[n-1].Node
	}
	return registry.Node{Service: ce.Service}
}

// known asks the registry, which is open already, what it knows; for suggestions, so an error is no matter.
func (in *invocation) known(ctx context.Context, waited time.Duration) discovery {
	d := discovery{waited: waited}
	if in.reg != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		d.nodes, _ = in.reg.List(ctx)
	}
	return d
}

// serviceNotFound is the failure of a name that the registry does not know.
func serviceNotFound(in *invocation, name string, d discovery) *failure {
	names := d.services()
	f := fail(exitNotFound, "service %q not found (%s, knows %s)", name, d.where(in), plural(len(names), "service")).because(registry.ErrNotFound)
	if near := suggest.Closest(name, names); near != "" {
		f = f.hint("did you mean", near)
	}
	if len(names) == 0 {
		f = f.hint("start one", "micro run")
	}
	return f.hint("all", "micro list services")
}

func topicNotFound(in *invocation, name string, d discovery) *failure {
	var names []string
	for _, n := range d.of(registry.BrokerService) {
		names = append(names, n.Metadata[registry.MetaTopic])
	}
	f := fail(exitNotFound, "nobody subscribes to topic %q (%s)", name, d.where(in)).because(registry.ErrNotFound)
	if near := suggest.Closest(name, names); near != "" {
		f = f.hint("did you mean", near)
	}
	return f.hint("all", "micro list topics")
}

// lacksEndpoint reports whether a 404 speaks of the endpoint, not of something that the handler did not find.
func (in *invocation) lacksEndpoint(ctx context.Context, ce *client.Error, st *status.Error) bool {
	known := in.endpointNames(ctx, lastNode(ce))
	return len(known) > 0 && !slices.Contains(known, ce.Endpoint) || strings.Contains(st.Detail, "has no endpoint")
}

// endpointNames gives what a node serves by its record; a node that was named by its address is looked up.
func (in *invocation) endpointNames(ctx context.Context, n registry.Node) []string {
	if len(n.Endpoints) == 0 {
		for _, known := range in.known(ctx, 0).nodes {
			if known.Service == n.Service && (known.ID == n.ID || known.Address == n.Address) {
				n = known
			}
		}
	}
	var names []string
	for _, e := range endpointsOf(n) {
		names = append(names, e.Name)
	}
	return names
}

// endpointNotFound is the failure of a name that a service does not serve.
func (in *invocation) endpointNotFound(ctx context.Context, service, endpoint string, n registry.Node) *failure {
	return noEndpoint(service, n.Version, endpoint, in.endpointNames(ctx, n))
}

func noEndpoint(service, version, endpoint string, known []string) *failure {
	f := fail(exitNotFound, "%s has no endpoint %q", strings.TrimSpace(service+" "+version), endpoint)
	if near := suggest.Closest(endpoint, known); near != "" {
		f = f.hint("did you mean", near)
	}
	return f.hint("all", "micro list endpoints "+service)
}

// noneMatches is the failure of --node and --version.
func noneMatches(ce *client.Error, nodes []registry.Node) *failure {
	f := fail(exitNotFound, "no node of %q matches (%s known)", ce.Service, plural(len(nodes), "node"))
	for i, n := range nodes {
		if i == 5 {
			f = f.line("and %d more", len(nodes)-i)
			break
		}
		f = f.line("%s %s  version %s", n.ID, n.Address, dash(n.Version))
	}
	return f.hint("all", "micro list nodes "+ce.Service)
}

// nobodyAnswered is the failure of a call that no node took.
func nobodyAnswered(ce *client.Error) *failure {
	f := fail(exitUnavailable, "no node of %q answered (%d tried)", ce.Service, len(ce.Attempts))
	for _, a := range ce.Attempts {
		f = f.line("%s  %s", placeOf(a.Node), attemptReason(a.Err))
	}
	return f.hint("how they are", "micro list nodes "+ce.Service+" --health")
}

func attemptReason(err error) string {
	var st *status.Error
	switch {
	case !errors.As(err, &st):
		return dialReason(err)
	case st.Code == status.Misdirected:
		return "another service has the port: " + st.Detail
	}
	return "refused: " + or(st.Detail, st.Code.String())
}

// remoteFailure is what a handler answered.
func (in *invocation) remoteFailure(ce *client.Error, st *status.Error) *failure {
	f := fail(codeOfStatus(st), "%s: %d %s", what(ce), int(st.Code), st.Code)
	if st.Detail != "" {
		f.what += ": " + st.Detail
	}
	f.details = in.errorDetails(st)
	return withNode(f, ce)
}

// timeoutFailure is that of a call whose time ran out. The system, or a transport, may have had less patience than we: then it is theirs
// that is told. Ours began before the call did where ctx has a deadline, for the endpoint was asked for first.
func timeoutFailure(ctx context.Context, ce *client.Error, within time.Duration) *failure {
	spent := ce.Elapsed
	if end, ok := ctx.Deadline(); ok {
		spent = max(spent, within-time.Until(end))
	}
	if errors.Is(ce.Err, syscall.ETIMEDOUT) || ce.Elapsed > 0 && spent < within/10*9 {
		within = ce.Elapsed.Round(time.Millisecond)
	}
	f := fail(exitTimeout, "%s: no answer within %s", what(ce), within)
	return withNode(f, ce).hint("more time", "--timeout 30s")
}

// withNode adds the line that tells which node it was.
func withNode(f *failure, ce *client.Error) *failure {
	n := lastNode(ce)
	if n.ID == "" {
		return f
	}
	return f.line("node %s · %s", placeOf(n), ce.Elapsed.Round(100*time.Microsecond))
}

// plural writes a number with its noun.
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return count(n, " "+noun+"s")
}
