// Sends one line of each sort as a client in a container does.
//
//	node hotshots_origin.js ADDRESS PREFIX CONTAINER
const StatsD = require('hot-shots');

const [address, prefix, containerID] = process.argv.slice(2);
const fail = (error) => { if (error) { console.error(error); process.exit(1); } };
const [host, port] = address.split(':');
const c = new StatsD({host, port: Number(port), prefix, errorHandler: fail, datadog: true, containerID, includeDatadogTelemetry: false});

c.increment('hits');
c.event('deployed', 'text');
c.check('up', c.CHECKS.OK, {message: 'fine'});
c.close(fail);
