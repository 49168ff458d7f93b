# caracal: this project, from its build in dist/ (npm run build).
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
settings='aead: { implementation: auto }'
caracal() { local side=$1; shift; ns "$side" env CARACAL_SOCKET="$DIR/$side.sock" node "$root/dist/cli/main.js" "$@"; }
have() { [ -e "$root/dist/cli/main.js" ] || { echo "build it first: npm ci"; return 1; }; }
version() { echo "caracal $(node "$root/dist/cli/main.js" --version)"; }
daemon() {   # SIDE OPTION VALUE: how it gets into the network
  echo "$settings" >"$DIR/$1.yaml"
  spawn "$1" node "$root/dist/cli/main.js" up --name "$1" --config "$DIR/$1.yaml" --state "$DIR/$1.state" --socket "$DIR/$1.sock" \
    --tun "$IF$1" --listen "0.0.0.0:7474" --dns none --log warn "$2" "$3"
  for _ in {1..100}; do caracal "$1" status &>/dev/null && return; sleep .1; done
  return 1
}
# Servers of the load tools come and go: a port that always listens keeps the service well.
expose() { helper "$1" python3 -m http.server 7999; sleep .3; caracal "$1" expose "bench-$1" "${@:2}" --tcp 7999; }
address() {  # SIDE NAME: what DNS answers there
  for _ in {1..50}; do
    caracal "$1" resolve "$2" --json 2>/dev/null | jq -er '.addresses.v4' && return; sleep .1
  done
  return 1
}
up() {
  daemon a --create bench && daemon b --join "$(caracal a invite | tail -n 1)" &&
    config="$(caracal a status --json | jq -r '.sealing[0] | "\(.aead) by \(.by)"'); MTU 1420; UDP; TUN and UDP offloads" &&
    expose b --tcp 5201 --udp 5201 --tcp 7001 --tcp 7002 && expose a --tcp 7002 &&
    OB=$(address a bench-b) && OA=$(address b bench-a)
}
