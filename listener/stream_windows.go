package listener

import "io"

// readNow leaves reading to gnet.
func readNow(int, []byte) (int, error) { return 0, io.ErrNoProgress }
