package mdns

// Kill ends r as kill -9 ends its process: nobody is told.
func Kill(r *Registry) {
	r.mu.Lock()
	r.closed = true
	e := r.endpoint
	r.mu.Unlock()
	r.kill()
	r.hub.Close()
	if e != nil {
		e.close(true)
	}
	r.work.Wait()
}
