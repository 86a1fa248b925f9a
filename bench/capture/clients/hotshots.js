'use strict';
// Makes the calls it reads, one JSON object a line, with hot-shots.
const path = require('path');
const readline = require('readline');

const [modules, host, port] = process.argv.slice(-3);
const StatsD = require(path.resolve(modules));
const client = new StatsD({ host, port: Number(port), maxBufferSize: 1432, bufferFlushInterval: 20 });

console.log('ready');
const lines = readline.createInterface({ input: process.stdin });
lines.on('line', (line) => {
  const { kind, name, value, rate, member, tags } = JSON.parse(line);
  switch (kind) {
    case 'c': client.increment(name, value, rate, tags); break;
    case 'g': client.gauge(name, value, tags); break;
    case 'ms': client.timing(name, value, rate, tags); break;
    case 'd': client.distribution(name, value, rate, tags); break;
    default: client.set(name, member, tags);
  }
});
lines.on('close', () => client.close());
