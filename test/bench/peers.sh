#!/bin/bash
# npm run bench:peers - builds, installs the peers, and measures this project side by side with them, as root on Debian. See peers/README.md.
# usage: npm run bench:peers -- [-n ROUNDS] [--out F.json] [--md F.md] [--peer-file X.sh]... [PEER ...]
# Without PEERs: all named below. The result goes to results/peers.json and peers.md unless --out says otherwise.
# Everything runs in process and mount namespaces of its own, so that whatever ends it, no process, network namespace or device stays.
set -eu
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
peers=(direct wireguard-go nebula tinc quicktun yggdrasil)
ours=("$here/caracal.sh" "$here/caracal-evp.sh")
out=$here/results/peers.json md= options=() named=()

stop() { echo "bench:peers: $1" >&2; exit "${2:-1}"; }
while [ $# -gt 0 ]; do case $1 in
  -h|--help) sed -n '2,4s/^# //p' "$0"; exit;;
  --out|--md) [ $# -gt 1 ] || stop "$1 needs a value" 2
    path=$(cd "${INIT_CWD:-$PWD}" && realpath -m "$2"); [ "$1" = --md ] && md=$path || out=$path; shift 2;;
  --peer-file|--lock) [ $# -gt 1 ] || stop "$1 needs a value" 2
    options+=("$1" "$(cd "${INIT_CWD:-$PWD}" && realpath -m "$2")"); shift 2;;
  -n|--batch) [ $# -gt 1 ] || stop "$1 needs a value" 2
    options+=("$1" "$2"); shift 2;;
  -*) stop "no such option: $1" 2;;
  *) [ -r "$here/peers/peers/$1.sh" ] || stop "no such peer: $1; there are $(cd "$here/peers/peers" && echo *.sh | sed 's/\.sh//g')" 2
    named+=("$1"); shift;;
esac; done
[ ${#named[@]} -eq 0 ] || peers=("${named[@]}")
md=${md:-${out%.json}.md}

[ "$(id -u)" = 0 ] || stop 'needs root: network namespaces, TUN devices and apt-get'
export PATH=$PATH:/usr/sbin:/sbin

# Builds what is not there or older than its sources.
cd "$root"
if [ ! -d node_modules ]; then npm ci
elif [ ! -e dist/cli/main.js ] || [ -n "$(find lib daemon cli package.json tsconfig.json -type f -newer dist/cli/main.js -print -quit)" ]; then npm run build
fi

# Installs what is not there.
has_peer() (   # Those of peers/opt/ count only from there.
  here=$here/peers; have() { :; }
  . "$here/peers/$1.sh"
  have && { ! grep -qF "\$here/opt/" "$here/peers/$1.sh" || [ -e "$here/opt/$1.version" ]; }
) &>/dev/null
missing=
for tool in unshare iperf3 ping ip jq bc python3; do command -v "$tool" >/dev/null || missing+=" $tool"; done
for peer in "${peers[@]}"; do has_peer "$peer" || missing+=" $peer"; done
if [ -n "$missing" ]; then
  echo "bench:peers: installing$missing" >&2
  bash "$here/peers/setup.sh" >&2
fi
if [ "$(uname -m)" = x86_64 ] && ! ldconfig -p | grep -qF libIPSec_MB.so.1; then
  DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends libipsec-mb1 >&2 ||
    echo 'bench:peers: without libipsec-mb1: both of ours run with OpenSSL' >&2
fi

work=$(mktemp -d) run=
trap 'rm -rf "$work"' EXIT
trap '[ -z "$run" ] || kill -9 "$run" || :; exit 130' HUP INT TERM
mkdir -p /run/netns "$(dirname "$out")"
# The first process of the namespace takes all others along when it ends; it is killed with the one that waits for it.
TMPDIR=$work unshare --mount --pid --fork --kill-child --mount-proc bash -c 'mount -t tmpfs tmpfs /run/netns && "$@" & wait $!' bash \
  bash "$here/peers/run.sh" --out "$work/peers.json" --md "$work/peers.md" "${options[@]}" \
  --peer-file "${ours[0]}" --peer-file "${ours[1]}" "${peers[@]}" </dev/null &
run=$!
wait "$run" || stop 'the run failed'

{ cat "$work/peers.md"; echo; python3 "$here/ratios.py" "$work/peers.json" caracal caracal-evp; } >"$work/all.md"
echo
sed -n '/^| ours/,$p' "$work/all.md"
mv "$work/peers.json" "$out"
mv "$work/all.md" "$md"
echo
echo "bench:peers: written to $out and $md"
