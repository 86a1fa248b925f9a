package aggregator

// gauge is the last value of an interval and when it came: between readers, the
// later one wins.
type gauge struct {
	value float64
	stamp int64 // nanoseconds since the agent's start when its packet came, 1 at least; 0: none came
}
