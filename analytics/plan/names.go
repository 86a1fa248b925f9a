package plan

// LooksPrivate reports whether the key of a tag says that it tells who it was, or
// something about them, or a secret.
func LooksPrivate(key []byte) bool {
	return looksLikeIdentity(key) || personal(string(key)) != "" || secret(string(key))
}
