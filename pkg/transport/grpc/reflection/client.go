package reflection

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

// The limits of what a server is believed.
const (
	maxFiles    = 4096
	maxServices = 4096
)

// Errors of a Client, to be asked for with [errors.Is].
var (
	// ErrNone: the server has no reflection.
	ErrNone = errors.New("reflection: the server has none")
	// ErrNotFound: the server has it, and not what it was asked for.
	ErrNotFound = errors.New("reflection: not found")
)

// Stream is one conversation with a server. The question is sent, and then the answer received.
type Stream interface {
	Send(message []byte) error
	Recv() ([]byte, error)
	Close() error
}

// Open opens a stream of a method, [MethodV1] or [MethodV1Alpha].
type Open func(ctx context.Context, method string) (Stream, error)

// Client asks a server what it serves. It is for one goroutine. Close it.
type Client struct {
	stream Stream
	files  *protoregistry.Files
	raw    map[string]*descriptorpb.FileDescriptorProto // what came, and is not in files yet
	asked  int
	names  []string // of the services
}

// Dial asks a server for the names of its services, in the version that it has. lacking reports of the error of a stream whether it says
// that there is no such method; the error is then [ErrNone], where that is so of both versions.
func Dial(ctx context.Context, open Open, lacking func(error) bool) (*Client, error) {
	for _, method := range []string{MethodV1, MethodV1Alpha} {
		stream, err := open(ctx, method)
		if err == nil {
			c := &Client{stream: stream, files: new(protoregistry.Files), raw: map[string]*descriptorpb.FileDescriptorProto{}}
			var a answer
			if a, err = c.ask(&question{ask: askServices}); err == nil {
				c.names = a.services[:min(len(a.services), maxServices)]
				slices.Sort(c.names)
				return c, nil
			}
			_ = stream.Close()
		}
		var told *Error
		if !lacking(err) && !(errors.As(err, &told) && told.Code == codeUnimplemented) {
			return nil, err
		}
	}
	return nil, ErrNone
}

// Close ends the conversation. What was found lives on.
func (c *Client) Close() error { return c.stream.Close() }

// Services gives the full names of the server's services, sorted.
func (c *Client) Services() []string { return slices.Clone(c.names) }

// Service finds a service. The error of one that the server does not know wraps [ErrNotFound].
func (c *Client) Service(name string) (protoreflect.ServiceDescriptor, error) {
	d, err := c.files.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		if err := c.fetch(&question{ask: askSymbol, text: name}); err != nil {
			return nil, err
		}
		if d, err = c.files.FindDescriptorByName(protoreflect.FullName(name)); err != nil {
			return nil, fmt.Errorf("%w: the server's files have no %s", ErrNotFound, name)
		}
	}
	sd, ok := d.(protoreflect.ServiceDescriptor)
	if !ok {
		return nil, fmt.Errorf("%w: %s is no service", ErrNotFound, name)
	}
	return sd, nil
}

// fetch asks for files, and takes them in with all that they import.
func (c *Client) fetch(q *question) error {
	a, err := c.ask(q)
	if err != nil {
		return err
	}
	var paths []string
	for _, data := range a.files {
		fdp := new(descriptorpb.FileDescriptorProto)
		if err := (proto.UnmarshalOptions{AllowPartial: true}).Unmarshal(data, fdp); err != nil {
			return fmt.Errorf("reflection: a file that the server sent: %w", err)
		}
		if c.raw[fdp.GetName()] == nil {
			c.raw[fdp.GetName()] = fdp
		}
		paths = append(paths, fdp.GetName())
	}
	if len(c.raw) > maxFiles {
		return fmt.Errorf("reflection: the server has more than %d files", maxFiles)
	}
	for _, path := range paths {
		if err := c.link(path, nil); err != nil {
			return err
		}
	}
	return nil
}

// link makes a file of what came, those that it imports before it. importers are the files that lead to it.
func (c *Client) link(path string, importers []string) error {
	if _, err := c.files.FindFileByPath(path); err == nil {
		return nil
	}
	fdp := c.raw[path]
	switch {
	case slices.Contains(importers, path):
		return fmt.Errorf("reflection: %s imports itself, by %s", path, strings.Join(importers, ", "))
	case fdp == nil && len(importers) >= maxFiles, c.asked > maxFiles:
		return fmt.Errorf("reflection: more than %d files", maxFiles)
	case fdp == nil:
		return c.missing(path)
	}
	for _, dependency := range fdp.GetDependency() {
		if err := c.link(dependency, append(importers, path)); err != nil {
			return err
		}
	}
	// What a server leaves out, as some do with options, is not what a message needs.
	fd, err := protodesc.FileOptions{AllowUnresolvable: true}.New(fdp, c.files)
	if err != nil {
		return fmt.Errorf("reflection: %s: %w", path, err)
	}
	if err := c.files.RegisterFile(fd); err != nil {
		return fmt.Errorf("reflection: %s: %w", path, err)
	}
	return nil
}

// missing asks for a file that is imported and did not come. The well-known ones a server need not have; and one that it does not know is
// left out.
func (c *Client) missing(path string) error {
	if strings.HasPrefix(path, "google/protobuf/") {
		if fd, err := protoregistry.GlobalFiles.FindFileByPath(path); err == nil {
			return c.register(fd)
		}
	}
	err := c.fetch(&question{ask: askFile, text: path})
	var told *Error
	if errors.As(err, &told) {
		return nil
	}
	return err
}

// register takes in a file that is linked into this program, with those that it imports.
func (c *Client) register(fd protoreflect.FileDescriptor) error {
	if _, err := c.files.FindFileByPath(fd.Path()); err == nil {
		return nil
	}
	for i := range fd.Imports().Len() {
		if err := c.register(fd.Imports().Get(i).FileDescriptor); err != nil {
			return err
		}
	}
	return c.files.RegisterFile(fd)
}

// ask sends a question and gives the answer; an [Error] where that is one, which wraps ErrNotFound where it says so.
func (c *Client) ask(q *question) (answer, error) {
	c.asked++
	sendErr := c.stream.Send(q.append(nil))
	if sendErr != nil && !errors.Is(sendErr, io.EOF) {
		return answer{}, sendErr
	}
	data, err := c.stream.Recv() // which tells why, where the stream has ended
	if err != nil {
		return answer{}, err
	}
	a, err := readAnswer(data)
	switch {
	case err != nil:
		return a, fmt.Errorf("reflection: the answer does not decode: %w", err)
	case a.err != nil && a.err.Code == codeNotFound:
		return a, fmt.Errorf("%w: %s: %w", ErrNotFound, q.text, a.err)
	case a.err != nil:
		return a, fmt.Errorf("reflection: %s: %w", q.text, a.err)
	}
	return a, nil
}
