#!/usr/bin/env bash
# Installs the peers of bench/compare that can be had, into a folder outside the tree:
#
#	bench/compare/peers.sh [FOLDER]
#
# By default $WEIR_PEERS, or weir-peers in the user's cache. Etsy's statsd comes from npm,
# statsd_exporter and telegraf (only what is compared of it) by Go's module proxy, collectd
# and netdata from Debian, unpacked and not installed, so that nothing is started.
# One that fails is left out.
set -uo pipefail
folder="${1:-${WEIR_PEERS:-${XDG_CACHE_HOME:-$HOME/.cache}/weir-peers}}"
mkdir -p "$folder/bin"
folder="$(cd "$folder" && pwd)"

from_go() { # name, module@version, package, flags
	local work
	work="$(mktemp -d)"
	(
		cd "$work" && printf 'module peer\n\ngo 1.26\n' >go.mod && export GOFLAGS=-mod=mod &&
			go get "$2" && go build -trimpath "${@:4}" -o "$folder/bin/$1" "$3"
	) >"$folder/$1.log" 2>&1 || echo "$1: not to be had, see $folder/$1.log"
	rm -rf "$work"
}
from_go statsd_exporter github.com/prometheus/statsd_exporter@v0.31.0 github.com/prometheus/statsd_exporter \
	-ldflags '-X github.com/prometheus/common/version.Version=0.31.0'
from_go telegraf github.com/influxdata/telegraf@v1.37.2 github.com/influxdata/telegraf/cmd/telegraf \
	-tags custom,inputs.statsd,inputs.internal,outputs.discard,outputs.file,serializers.json -ldflags '-X github.com/influxdata/telegraf/internal.Version=1.37.2'

if command -v npm >/dev/null; then
	npm install --prefix "$folder" --no-save --no-package-lock --no-audit --no-fund statsd@0.9.0 >"$folder/etsy.log" 2>&1 ||
		echo "etsy: not to be had, see $folder/etsy.log"
else
	echo "etsy: needs npm"
fi

if command -v apt-get >/dev/null; then
	mkdir -p "$folder/archives/partial" "$folder/debian"
	apt-get install -y -q --download-only --no-install-recommends -o Dir::Cache::archives="$folder/archives" \
		collectd-core netdata-core >"$folder/debian.log" 2>&1 || echo "collectd, netdata: not to be had, see $folder/debian.log"
	for archive in "$folder"/archives/*.deb; do
		[ -e "$archive" ] && dpkg -x "$archive" "$folder/debian"
	done
fi
ls "$folder"/bin "$folder"/debian/usr/sbin 2>/dev/null
