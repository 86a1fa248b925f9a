package analytics

// Totals returns how many occurrences of an event there were, by day.
func (e *Engine) Totals(event string) map[string]float64 {
	all := map[string]float64{}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range e.rules {
		if r.text != event {
			continue
		}
		r.mu.Lock()
		for d, c := range r.days {
			all[d.String()] = c.total
		}
		r.mu.Unlock()
	}
	return all
}
