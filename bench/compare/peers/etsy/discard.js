exports.init = function (startup, config, events) {
  events.on("flush", function (timestamp, metrics) {});
  return true;
};
