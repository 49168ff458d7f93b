#!/bin/sh
# Builds the addon, every .cc file of this folder, into build/Release/caracal.node, and the keeper (keeper/) into caracal-keeper beside it (CARACAL_BUILD_DIR: another folder than build/Release).
# Needs a C++ compiler and Node's own headers, nothing from the network. Does nothing when both are newer than all sources.
set -eu

native=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$native/../.." && pwd)
out=${CARACAL_BUILD_DIR:-$root/build/Release}
cxx=${CXX:-g++}

stop() {
  echo "caracal: $1" >&2
  echo "  $2" >&2
  exit 1
}

mkdir -p "$out"
if [ -f "$out/caracal.node" ] && [ -f "$out/caracal-keeper" ] && [ -z "$(find "$native" -type f -newer "$out/caracal.node")" ]; then
  exit 0
fi

# How this system installs a package: $1 Debian's name, $2 Fedora's, $3 Arch's, $4 Alpine's.
how() {
  if command -v apt-get >/dev/null; then echo "type: sudo apt-get install -y $1"
  elif command -v dnf >/dev/null; then echo "type: sudo dnf install -y $2"
  elif command -v pacman >/dev/null; then echo "type: sudo pacman -S --needed $3"
  elif command -v apk >/dev/null; then echo "type: sudo apk add $4"
  else echo "install a package like $1 (Debian) or $2 (Fedora)"
  fi
}

command -v node >/dev/null || stop 'node is missing' "$(how nodejs nodejs nodejs nodejs)"
command -v "$cxx" >/dev/null || stop "the C++ compiler $cxx is missing" "$(how 'g++ make' 'gcc-c++ make' 'base-devel' 'g++ make linux-headers')"

beside=$(node -p "require('node:path').resolve(require('node:fs').realpathSync(process.execPath), '../../include/node')")
if [ -f "$beside/node_api.h" ]; then headers=$beside
elif [ -f /usr/include/node/node_api.h ]; then headers=/usr/include/node
else stop "the headers of node are missing (looked in $beside and /usr/include/node)" \
  "$(how libnode-dev nodejs-devel nodejs nodejs-dev), or use a node from https://nodejs.org/dist, which brings them"
fi

work=$(mktemp -d "$out/.build-XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# One compiler a file, all at once; each leaves a .done file behind when it succeeded.
for source in "$native"/*.cc; do
  name=$(basename "$source" .cc)
  {
    if "$cxx" -c -O2 -std=c++17 -fPIC -fvisibility=hidden -Wall -Wextra -Werror=return-type -fno-strict-aliasing \
      -DNAPI_VERSION=8 -I"$headers" ${CXXFLAGS:-} -o "$work/$name.o" "$source"; then : >"$work/$name.done"; fi
  } &
done
{
  if "$cxx" -O2 -std=c++17 -Wall -Wextra -Werror=return-type ${CXXFLAGS:-} -o "$work/caracal-keeper" "$native/keeper/keeper.cc" ${LDFLAGS:-}; then
    : >"$work/keeper.done"
  fi
} &
wait
[ -f "$work/keeper.done" ] || stop "the keeper was not built" "the compiler's messages stand above"
for source in "$native"/*.cc; do
  [ -f "$work/$(basename "$source" .cc).done" ] || stop "the addon was not built" "the compiler's messages stand above"
done
"$cxx" -shared -o "$work/caracal.node" "$work"/*.o ${LDFLAGS:-}
# A running daemon or keeper keeps the file it has mapped: the new one takes its name, not its place.
mv -f "$work/caracal-keeper" "$out/caracal-keeper"
mv -f "$work/caracal.node" "$out/caracal.node"
