// Takes the metrics of a flush and does nothing with them but write down what statsd
// counts itself, for the ledger: a line for each flush, and one when it is told to end.
const fs = require("fs");

exports.init = function (startup, config, events) {
  process.on("SIGTERM", function () { process.exit(0); }); // statsd flushes when it exits
  events.on("flush", function (timestamp, metrics) {
    fs.appendFileSync("{{.Dir}}/flushes.json", JSON.stringify({
      packets: metrics.counters["statsd.packets_received"],
      metrics: metrics.counters["statsd.metrics_received"],
      bad: metrics.counters["statsd.bad_lines_seen"],
      ms: metrics.statsd_metrics["processing_time"],
    }) + "\n");
  });
  return true;
};
