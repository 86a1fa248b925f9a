// A backend for Etsy's statsd that tells on file descriptor 3 what came and what
// became of it: {"ready": true} for every empty packet, {"packets": n} for every
// other one, and {"flush": {…}} for every flush.
// It writes synchronously: after the last flush the process exits at once. JSON has
// no infinity; the largest number stands for it.
const fs = require('fs');

exports.init = (startupTime, config, events) => {
  const finite = (key, value) => value === Infinity ? Number.MAX_VALUE : value;
  const say = (what) => fs.writeFileSync(3, JSON.stringify(what, finite) + '\n');
  let packets = 0;
  events.on('packet', (packet) => say(packet.length === 0 ? {ready: true} : {packets: ++packets}));
  events.on('flush', (time, metrics) => {
    const sets = {};
    for (const key in metrics.sets) {
      sets[key] = metrics.sets[key].size();
    }
    say({flush: {
      counters: metrics.counters,
      gauges: metrics.gauges,
      sets,
      timers: metrics.timer_data,
    }});
  });
  return true;
};
