package fleet

import (
	"context"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// Done returns which period of a report some host was done with last; the zero time if
// that is not known.
func (c *Client) Done(ctx context.Context, report string) (period time.Time, err error) {
	var answer *redis.StringCmd
	if err := c.run(ctx, func(p redis.Pipeliner) { answer = p.HGet(ctx, c.fleetKey("reports"), report) }); err != nil {
		return period, err
	}
	if unix, err := strconv.ParseInt(answer.Val(), 10, 64); err == nil && unix > 0 {
		period = time.Unix(unix, 0)
	}
	return period, nil
}

// SetDone lets all hosts know that a period of a report is done.
func (c *Client) SetDone(ctx context.Context, report string, period time.Time) error {
	return c.run(ctx, func(p redis.Pipeliner) {
		p.HSet(ctx, c.fleetKey("reports"), report, strconv.FormatInt(period.Unix(), 10))
	})
}
