package http

// keyContentType is the header of a POST that names the form of its body, and mdContentType the same as a metadata key.
const (
	keyContentType = "Content-Type"
	mdContentType  = "content-type"
)
