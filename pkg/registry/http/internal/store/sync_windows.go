package store

// syncDir does nothing: Windows has no flush of a folder.
func syncDir(string) error { return nil }
