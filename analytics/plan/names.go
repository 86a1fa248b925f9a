package plan

// LooksLikeIdentity reports whether the key of a tag says that it tells who it was.
func LooksLikeIdentity(key []byte) bool { return looksLikeIdentity(key) }
