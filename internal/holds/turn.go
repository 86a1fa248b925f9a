package holds

import "runtime"

// EndTurn unlocks m, and lets who waits for it go on before the caller does: without that
// a caller that locks it again at once would be faster than they, for a millisecond.
func EndTurn(m *Mutex) {
	m.Unlock()
	runtime.Gosched()
}
