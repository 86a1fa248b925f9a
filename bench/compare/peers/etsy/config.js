// Flushes every 10 s, its default, to a backend that takes the metrics and does nothing.
{
  address: "127.0.0.1",
  port: {{.Port}},
  mgmt_address: "127.0.0.1",
  mgmt_port: {{.AdminPort}},
  flushInterval: 10000,
  percentThreshold: [95],
  debug: false,
  backends: ["{{.Dir}}/discard.js"]
}
