//go:build !linux

package local

import "errors"

// events are not to be had here: no system but Linux tells of a lock that is let go.
type events struct{ batches chan batch }

func listen(string) (*events, error) { return nil, errors.ErrUnsupported }

func (e *events) close() {}
