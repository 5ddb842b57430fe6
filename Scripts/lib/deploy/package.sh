# shellcheck shell=bash
# The image, and the Debian package in a container. Needs common.sh, engine.sh; WORK is a directory.

# Kilobytes of all layers of an image.
image_kb() { echo $(($(docker image inspect -f '{{.Size}}' "$1") / 1024)); }

image_is_as_promised() {
  local own user
  own=$(($(image_kb "$HUB_IMAGE") - $(image_kb debian:bookworm-slim)))
  ((own < 60 * 1024)) || fail "hub's own layers have $own kB"
  user=$(docker image inspect -f '{{.Config.User}}' "$HUB_IMAGE")
  [[ $user == 10001:10001 ]] || fail "the image's user is $user"
  [[ $(docker run --rm --network=none --read-only --cap-drop=ALL "$HUB_IMAGE" --version) == "$VERSION" ]] ||
    fail "hub does not run in its image"
  say "ok             the image: hub's own layers have $own kB, its user is $user, hub $VERSION runs read-only"
}

package_scenario() {
  local began id package
  began=$(now_ms)
  id=$(docker create "$HUB_IMAGE" 2>/dev/null)
  docker cp "$id:/usr/local/bin/hub" "$WORK/hub" >/dev/null
  docker rm "$id" >/dev/null
  "$ROOT/Scripts/package" --binary "$WORK/hub" >"$WORK/package.log" || { cat "$WORK/package.log" >&2; fail "no package"; }
  package=$(echo "$ROOT"/.build-package/hub-sync_*.deb)
  mkdir -p "$WORK/deb"
  cp "$package" "$WORK/deb/hub.deb"
  cp "$ROOT/Scripts/lib/deploy/in-package.sh" "$WORK/deb/"
  docker run --rm --network=host -v "$WORK/deb:/deb:ro" debian:bookworm-slim bash /deb/in-package.sh "$VERSION" \
    >"$WORK/install.log" 2>&1 || { tail -n 20 "$WORK/install.log" >&2; fail "the package did not pass"; }
  did "$began" "the package: installed by dpkg, read, removed; $(tail -n 1 "$WORK/install.log")"
}
