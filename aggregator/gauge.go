package aggregator

// gauge is the last value of an interval and when it came: between readers, the
// later one wins.
type gauge struct {
	value float64
	stamp int64 // unix nanoseconds of the batch of packets it came in; 0: none came
}
