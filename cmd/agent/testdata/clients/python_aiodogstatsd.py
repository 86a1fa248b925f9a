"""Sends every kind that Debian's python3-aiodogstatsd knows.

python3 python_aiodogstatsd.py NETWORK ADDRESS PREFIX
"""

import asyncio
import sys

import aiodogstatsd

address, prefix = sys.argv[2:4]
host, _, port = address.partition(":")


async def main():
    client = aiodogstatsd.Client(
        host=host, port=int(port), namespace=prefix, constant_tags={"client": "aio"}, read_timeout=0.05
    )
    async with client as c:
        for i in range(300):
            c.increment("hits")
            c.increment("hits", value=2, tags={"route": "a", "env": "x"})
            c.decrement("balance")
            c.gauge("level", value=i / 4)
            c.timing("took", value=i + 1)
            c.histogram("size", value=i + 1)
            c.distribution("latency", value=i + 1)


asyncio.run(main())
