"""Makes the calls it reads, one JSON object a line, with aiodogstatsd."""
import asyncio
import json
import sys

import aiodogstatsd


async def main(host, port):
    client = aiodogstatsd.Client(host=host, port=int(port))
    await client.connect()
    print("ready", flush=True)
    for n, line in enumerate(sys.stdin):
        call = json.loads(line)
        tags = dict(tag.split(":", 1) for tag in call["tags"])
        kind, name, value, rate = call["kind"], call["name"], call["value"], call["rate"]
        if kind == "c":
            client.increment(name, value=int(value), tags=tags, sample_rate=rate)
        elif kind == "g":
            client.gauge(name, value=value, tags=tags)
        elif kind == "ms":
            client.timing(name, value=value, tags=tags, sample_rate=rate)
        elif kind == "d":
            client.distribution(name, value=value, tags=tags, sample_rate=rate)
        else:  # it has no sets
            client.increment(name, tags=tags)
        if n % 50 == 0:
            await asyncio.sleep(0)  # lets it write
    await client.close()


asyncio.run(main(sys.argv[-2], sys.argv[-1]))
