package local

import (
	"encoding/binary"
	"os"

	"golang.org/x/sys/unix"
)

// events are the folder's: inotify(7). An instance is open only while somebody watches: a user has 128 of them.
type events struct {
	batches chan batch // closed when there are no more
	file    *os.File
	stop    chan struct{}
	done    chan struct{}
}

// What is asked for: IN_CREATE of a link, IN_CLOSE_WRITE of an owner that ended. IN_ONLYDIR and IN_DONT_FOLLOW: nothing
// else in the folder's place.
const eventMask = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE | unix.IN_CLOSE_WRITE |
	unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR | unix.IN_DONT_FOLLOW

const endMask = unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_IGNORED | unix.IN_UNMOUNT

// listen asks for the events of the folder at path.
func listen(path string) (*events, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err) // EMFILE: the user's instances or the process's files
	}
	if _, err := unix.InotifyAddWatch(fd, path, eventMask); err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("inotify_add_watch", err)
	}
	e := &events{
		batches: make(chan batch),
		file:    os.NewFile(uintptr(fd), "inotify"),
		stop:    make(chan struct{}),
		done:    make(chan struct{}),
	}
	go e.read()
	return e, nil
}

// close ends the events, and waits for their reader.
func (e *events) close() {
	close(e.stop)
	_ = e.file.Close()
	<-e.done
}

func (e *events) read() {
	defer close(e.done)
	defer close(e.batches)
	buf := make([]byte, 16<<10)
	for {
		n, err := e.file.Read(buf)
		if err != nil {
			return
		}
		b := parseEvents(buf[:n])
		if len(b.names) == 0 && !b.all && !b.folder {
			continue
		}
		select {
		case e.batches <- b:
		case <-e.stop:
			return
		}
	}
}

// parseEvents reads struct inotify_event after struct inotify_event: wd, mask, cookie and the name's length, 32 bits
// each, and the name, padded with NUL.
func parseEvents(data []byte) batch {
	b := batch{names: map[string]bool{}}
	for len(data) >= unix.SizeofInotifyEvent {
		mask := binary.NativeEndian.Uint32(data[4:])
		size := uint64(binary.NativeEndian.Uint32(data[12:]))
		data = data[unix.SizeofInotifyEvent:]
		if size > uint64(len(data)) {
			b.all = true
			break
		}
		name := unix.ByteSliceToString(data[:size])
		data = data[size:]
		closed := mask&unix.IN_CLOSE_WRITE != 0
		switch {
		case mask&endMask != 0:
			b.folder = true
		case mask&unix.IN_Q_OVERFLOW != 0:
			b.all = true
		case name == "" || mask&unix.IN_ISDIR != 0:
		case name[:1] != tempPrefix:
			b.names[name] = b.names[name] || closed
		case closed:
			b.all = true // a file that was linked, not renamed, is closed under its first name
		}
	}
	return b
}
