#!/bin/bash
# npm run bench:latency - round trips of single packets, as root: ping (p50 and p99, us) and 1-byte TCP request/response (per second), of
# the bare link (direct), a daemon without protocol (pump: test/net/pump.ts), caracal with loop.thread own and main, and quicktun where it is installed.
# usage: npm run bench:latency -- [-n ROUNDS] [--pin] [--root DIR]... [VARIANT ...]
# All are up at the same time and measured in turn, so that what else the machine does falls on all of them; the figures are medians over the rounds (5).
# Daemons and load run at the highest ordinary priority (nice -20), which other programs of the machine disturb less.
# --pin keeps each side on a processor of its own, which is steadier; without it the kernel may put both on one. --root DIR measures another build of
# this project too (own:DIR, main:DIR), as before and after a change. The table goes to stdout, and behind it one line of JSON.
# Everything runs in process and mount namespaces of its own, so that whatever ends it, no process, network namespace or device stays.
set -eu
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)

stop() { echo "bench:latency: $1" >&2; exit "${2:-1}"; }

if [ "${1:-}" != --inside ]; then
  rounds=5 pin= roots=() variants=()
  while [ $# -gt 0 ]; do case $1 in
    -h|--help) sed -n '2,9s/^# //p' "$0"; exit;;
    -n) [ $# -gt 1 ] || stop '-n needs a value' 2; rounds=$2; shift 2;;
    --pin) pin=1; shift;;
    --root) [ $# -gt 1 ] || stop '--root needs a value' 2
      roots+=("$(cd "${INIT_CWD:-$PWD}" && realpath "$2")"); shift 2;;
    direct|pump|own|main|quicktun) variants+=("$1"); shift;;
    *) stop "no such variant: $1; there are direct pump own main quicktun" 2;;
  esac; done
  [[ $rounds =~ ^[1-9][0-9]*$ ]] || stop '-n needs a number' 2
  [ "$(id -u)" = 0 ] || stop 'needs root: network namespaces and TUN devices'
  export PATH=$PATH:/usr/sbin:/sbin
  for tool in unshare ping ip jq python3; do command -v "$tool" >/dev/null || stop "$tool is missing"; done
  [ -e "$root/dist/cli/main.js" ] || stop 'build it first: npm ci'
  if [ ${#variants[@]} = 0 ]; then
    variants=(direct pump own main)
    ! command -v quicktun >/dev/null || ! command -v keypair >/dev/null || variants+=(quicktun)
  fi
  for other in "${roots[@]}"; do variants+=("own:$other" "main:$other"); done
  work=$(mktemp -d) run=
  trap 'rm -rf "$work"' EXIT
  trap '[ -z "$run" ] || kill -9 "$run" || :; exit 130' HUP INT TERM
  mkdir -p /run/netns
  # The first process of the namespace takes all others along when it ends; it is killed with the one that waits for it.
  TMPDIR=$work unshare --mount --pid --fork --kill-child --mount-proc bash -c 'mount -t tmpfs tmpfs /run/netns && "$@" & wait $!' bash \
    bash "$0" --inside "$work" "$rounds" "$pin" "${variants[@]}" </dev/null &
  run=$!
  wait "$run" || stop 'the run failed'
  exit
fi

work=$2 rounds=$3 pin=$4
shift 4
# Of the variant with the number n: network namespaces n-a and n-b.
side() { local n=$1 s=$2; shift 2; ip netns exec "$n-$s" nice -n -20 ${pin:+taskset -c "$([ "$s" = a ] && echo 0 || echo 1)"} "$@"; }
until_true() { local i; for i in {1..150}; do "$@" &>/dev/null && return; sleep .1; done; stop "$* did not come about: see the log" ; }

link() {
  ip netns add "$1-a"; ip netns add "$1-b"
  ip -n "$1-a" link add va type veth peer name vb netns "$1-b"
  ip -n "$1-a" addr add 10.200.0.1/24 dev va; ip -n "$1-b" addr add 10.200.0.2/24 dev vb
  for s in a b; do ip -n "$1-$s" link set lo up; ip -n "$1-$s" link set "v$s" up; done
}
pump() {
  local s options
  for s in 'a 1 2' 'b 2 1'; do
    set -- "$1" $s
    options=$(jq -cn --arg own "$3" --arg other "$4" '{tun: {name: "tun", mtu: 1400}, udp: {address: "10.200.0.\($own)", port: 7474},
      remote: {address: "10.200.0.\($other)", port: 7474}, self: ["10.201.0.\($own)"], routes: ["10.201.0.0/24"], pools: []}')
    # It ends with its stdin.
    sleep infinity | side "$1" "$2" node "$root/dist/test/net/pump.js" "$options" >"$2.log" 2>&1 &
  done
  until_true grep -q ready a.log; until_true grep -q ready b.log
  echo 10.201.0.2 >address
}
quicktun_pair() {
  local s o u
  for s in a b; do keypair 2>/dev/null >$s.pair </dev/null; done
  for s in a b; do
    [ $s = a ] && o=b u=10.200.0.2 || o=a u=10.200.0.1
    side "$1" $s env IFACE=qt IF_QT_TUN_MODE=1 IF_QT_PROTOCOL=nacltai IF_QT_REMOTE_ADDRESS=$u IF_QT_REMOTE_FLOAT=1 \
      IF_QT_PRIVATE_KEY="$(sed -n 's/SECRET: *//p' $s.pair)" IF_QT_PUBLIC_KEY="$(sed -n 's/PUBLIC: *//p' $o.pair)" quicktun >$s.log 2>&1 </dev/null &
    until_true ip -n "$1-$s" link show qt
    ip -n "$1-$s" addr add "10.201.0.$([ $s = a ] && echo 1 || echo 2)/24" dev qt
    ip -n "$1-$s" link set qt mtu 1420 up
  done
  echo 10.201.0.2 >address
}
caracal() { local n=$1 s=$2; shift 2; side "$n" "$s" env CARACAL_SOCKET="$PWD/$s.sock" node "$build/dist/cli/main.js" "$@" </dev/null; }
daemon() {
  local n=$1 s=$2; shift 2
  caracal "$n" "$s" up --name "$s" --config "$PWD/settings.yaml" --state "$PWD/$s.state" --socket "$PWD/$s.sock" --tun caracal \
    --listen 0.0.0.0:7474 --dns none --log warn "$@" >"$s.log" 2>&1 &
  until_true caracal "$n" "$s" status
}
ours() {   # number, loop.thread, folder of the build
  build=$3
  echo "loop: { thread: $2 }" >settings.yaml
  daemon "$1" a --create bench
  daemon "$1" b --join "$(caracal "$1" a invite | tail -n 1)"
  # A port that always listens keeps the service well.
  side "$1" b python3 -m http.server 7999 >/dev/null 2>&1 &
  sleep .3
  caracal "$1" b expose bench --tcp 7001 --tcp 7999 >/dev/null
  until_true caracal "$1" a resolve bench
  caracal "$1" a resolve bench --json | jq -er .addresses.v4 >address
}

n=0
for variant; do
  n=$((n + 1)) && mkdir "$work/$n" && cd "$work/$n"
  link $n
  case $variant in
    direct) echo 10.200.0.2 >address;;
    pump) pump $n;;
    quicktun) quicktun_pair $n;;
    own:*|main:*) ours $n "${variant%%:*}" "${variant#*:}";;
    *) ours $n "$variant" "$root";;
  esac
  until_true side $n a ping -n -c 1 -W 1 "$(cat address)"
done

for ((round = 0; round <= rounds; round++)); do
  n=0
  for variant; do
    n=$((n + 1)) && cd "$work/$n"
    to=$(cat address)
    # The first round warms up: code is compiled for what it has seen.
    ping=$(side $n a timeout 30 ping -n -i 0.002 -c 500 -W 1 "$to" | sed -n 's/.*time=\([0-9.]*\) ms/\1/p' |
      jq -cs 'sort | {p50_us: (.[length / 2 | floor] * 1000), p99_us: (.[length * .99 | floor] * 1000), replies: length}')
    # Not before: a program that starts takes the processors from what is measured.
    side $n b python3 "$here/peers/probe.py" echo "$to" 7001 &
    rr=$(side $n a timeout 30 python3 "$here/peers/probe.py" rr "$to" 7001 $([ $round = 0 ] && echo 2 || echo 1)) || rr=null
    wait $! || :
    [ $round = 0 ] || jq -cn --arg variant "$variant" --argjson round $round --argjson ping "$ping" --argjson rr "$rr" \
      '{$variant, $round, ping_p50_us: $ping.p50_us, ping_p99_us: $ping.p99_us, ping_replies: $ping.replies, rr_per_s: $rr.tps}' >>"$work/rounds"
  done
done

jq -cs --args 'def median: map(select(. != null)) | sort | if length == 0 then null else .[length / 2 | floor] end;
  . as $all | {rounds: ., medians: [$ARGS.positional[] as $v | [$all[] | select(.variant == $v)] |
    {variant: $v, ping_p50_us: map(.ping_p50_us) | median, ping_p99_us: map(.ping_p99_us) | median, rr_per_s: map(.rr_per_s) | median}]}' \
  "$@" <"$work/rounds" >"$work/result"
jq -r 'def n: if . == null then "-" else round end;
  (.medians | map(select(.variant == "quicktun")) | first) as $q |
  "| variant | ping p50 us | p99 us | TCP RR/s | ping p50 / quicktun | RR / quicktun |", "|---|--:|--:|--:|--:|--:|",
  (.medians[] | "| \(.variant) | \(.ping_p50_us | n) | \(.ping_p99_us | n) | \(.rr_per_s | n) | " +
    if $q == null or .rr_per_s == null then "- | - |"
    else "\(.ping_p50_us / $q.ping_p50_us * 100 | round / 100) | \(.rr_per_s / $q.rr_per_s * 100 | round / 100) |" end)' "$work/result"
cat "$work/result"
