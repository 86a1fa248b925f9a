# Sends every kind that Debian's libnet-statsd-perl knows.
#
#	perl net_statsd.pl NETWORK ADDRESS PREFIX
use strict;
use warnings;
use Net::Statsd;

my ($network, $address, $prefix) = @ARGV;
($Net::Statsd::HOST, $Net::Statsd::PORT) = split /:/, $address;

for my $i (0 .. 299) {
    Net::Statsd::increment("$prefix.hits");
    Net::Statsd::increment(["$prefix.first", "$prefix.second"]);
    Net::Statsd::decrement("$prefix.balance");
    Net::Statsd::update_stats("$prefix.bytes", $i);
    Net::Statsd::gauge("$prefix.level" => $i / 4);
    Net::Statsd::timing("$prefix.took", $i + 1);
}
# Several values of one name go in one packet: to zero first, and then below.
Net::Statsd::gauge("$prefix.negative" => 0, "$prefix.negative" => -18);
