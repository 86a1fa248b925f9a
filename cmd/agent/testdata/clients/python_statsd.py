"""Sends every kind that Debian's python3-statsd knows.

python3 python_statsd.py NETWORK ADDRESS PREFIX [statsd]
"""

import datetime
import sys

import statsd

network, address, prefix = sys.argv[1:4]
host, _, port = address.partition(":")
if network == "udp":
    c = statsd.StatsClient(host, int(port), prefix=prefix, maxudpsize=1400)
elif network == "tcp":
    c = statsd.TCPStatsClient(host, int(port), prefix=prefix)
else:
    c = statsd.UnixSocketStatsClient(address, prefix=prefix)

for i in range(300):
    c.incr("hits")
    c.decr("balance", 2)
    c.gauge("level", i / 4)
    c.timing("took", i + 1)
    c.set("users", "user%d" % (i % 20))
with c.pipeline() as pipe:
    for i in range(100):
        pipe.incr("piped", 3)
    pipe.timing("waited", datetime.timedelta(milliseconds=1500))
c.gauge("negative", -5)
if sys.argv[4:] == ["statsd"]:
    c.gauge("stock", 20)
    c.gauge("stock", 5, delta=True)
    c.gauge("stock", -7.5, delta=True)
c.close()
