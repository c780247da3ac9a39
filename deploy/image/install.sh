#!/bin/sh
# Puts the plugins of this image into a node's directory of plugins, each name in one step, under running callers.
# The entry point of the image that the Containerfile makes: install.sh [FROM [TO]].
set -eu
from=${1:-/opt/patchbay}
to=${2:-/host/opt/cni/bin}

# Whether every name is a link to this very image.
is_current() {
  cmp -s "$from/bridge" "$to/bridge" || return 1
  for path in "$from"/*; do
    [ ! -x "$path" ] || [ "$to/${path##*/}" -ef "$to/bridge" ] || return 1
  done
}

# What an installation left that was killed; the names themselves are whole files at any time.
rm -rf "$to"/.patchbay-image-*
if is_current; then
  echo "The plugins in $to are up to date"
  exit 0
fi

new=$to/.patchbay-image-$$
mkdir "$new"
trap 'rm -rf "$new"' EXIT
cp "$from/bridge" "$new/image"
chmod 755 "$new/image"
# On the disk before anything refers to it.
sync
for path in "$from"/*; do
  [ -x "$path" ] || continue
  name=${path##*/}
  # link(2) cannot replace a file, rename(2) can.
  ln "$new/image" "$new/$name"
  mv -f "$new/$name" "$to/$name"
  echo "$to/$name"
done
