// Sends every kind that hot-shots knows.
//
//	node hotshots.js NETWORK ADDRESS PREFIX [statsd]
const StatsD = require('hot-shots');

const [network, address, prefix, dialect] = process.argv.slice(2);
const fail = (error) => { if (error) { console.error(error); process.exit(1); } };
const [host, port] = address.split(':');
const where = network === 'unix_datagram' ? {protocol: 'uds', path: address} : {protocol: network, host, port: Number(port)};
const c = new StatsD({...where, prefix, globalTags: {client: 'node'}, errorHandler: fail, maxBufferSize: 1200});

for (let i = 0; i < 300; i++) {
  c.increment('hits');
  c.increment('hits', 2, {route: 'a', env: 'x'});
  c.decrement('balance');
  c.gauge('level', i / 4);
  c.timing('took', i + 1);
  c.set('users', 'user' + (i % 20));
  c.histogram('size', i + 1);
  c.distribution('latency', i + 1);
}
// Where a socket has no room, packets are sent again later and come out of order: what
// must come last waits for the others. hot-shots calls back before it has emptied its
// buffer, and would send that again, so the rest waits for the next turn, too.
c.flush((error) => {
  fail(error);
  setImmediate(last);
});

function last() {
  c.gauge('level', 300);
  if (dialect === 'statsd') {
    c.gauge('stock', 20);
    c.gaugeDelta('stock', 5);
    c.gaugeDelta('stock', -7.5);
  }
  c.gauge('past.level', 7.5, {timestamp: new Date(1700000000000), tags: {env: 'x'}});
  c.increment('past.hits', 3, {timestamp: 1700000001});
  c.event('deployed', 'line one\nline two', {
    date_happened: new Date(1700000002000), hostname: 'other-host', aggregation_key: 'deploys',
    priority: 'low', source_type_name: 'ci', alert_type: 'warning',
  }, {env: 'x'});
  c.event('restarted');
  c.check('up', c.CHECKS.WARNING, {date_happened: new Date(1700000003000), hostname: 'other-host', message: 'it lags m: 3 s'}, {env: 'x'});
  c.check('down', c.CHECKS.CRITICAL);
  c.close(fail);
}
