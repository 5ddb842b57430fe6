# shellcheck shell=bash
# A private Docker engine with its own data and its own network namespace, and images for a machine that reaches no
# registry. Needs common.sh; root.

# engine_up DIRECTORY: DOCKER_HOST leads to it. Inside it nothing leaves the machine; published ports are on the
# namespace's own loopback (see `inside`).
engine_up() {
  ENGINE=$1
  NETNS=hub-deploy-$$
  mkdir -p "$ENGINE/data" "$ENGINE/exec"
  ip netns add "$NETNS"
  on_exit ip netns delete "$NETNS"
  ip -n "$NETNS" link set lo up
  # Not `ip netns exec`: it mounts /sys anew and hides the cgroups of version 1.
  local runtime=()
  if ! may_exceed_limits; then runtime=(--add-runtime "hub-test=$ROOT/Scripts/lib/deploy/runc" --default-runtime hub-test); fi
  engine_start nsenter --net="/run/netns/$NETNS" -- dockerd --bip 172.30.0.1/24 \
    --default-address-pool base=172.31.0.0/16,size=24 "${runtime[@]}"
  on_exit engine_stop
}

# Whether root has CAP_SYS_RESOURCE, as it has unless a virtual machine's maker took it away.
may_exceed_limits() { (((0x$(sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status) >> 24) & 1)); }

# For building: in the machine's own network, which it does not touch.
engine_up_for_builds() {
  ENGINE=$1
  mkdir -p "$ENGINE/data" "$ENGINE/exec"
  engine_start dockerd --bridge=none --iptables=false --ip-forward=false --ip-masq=false
}

engine_start() {
  local i
  # 107 bytes are all that a socket's path has.
  export DOCKER_HOST=unix://$ENGINE/docker.sock
  "$@" --data-root "$ENGINE/data" --exec-root "$ENGINE/exec" --pidfile "$ENGINE/docker.pid" -H "$DOCKER_HOST" \
    --storage-driver "${HUB_DOCKER_DRIVER:-overlay2}" >>"$ENGINE/dockerd.log" 2>&1 &
  record_process "$ENGINE/engine.pid" $!
  for ((i = 0; i < 300; i++)); do
    if docker version >/dev/null 2>&1; then return; fi
    process_runs "$ENGINE/engine.pid" || break
    sleep 0.1
  done
  tail -n 5 "$ENGINE/dockerd.log" >&2
  fail "dockerd did not start"
}

engine_stop() {
  end_process "$ENGINE/engine.pid" TERM 60
  # It forgets this one, which would keep the network.
  umount "$ENGINE/exec/netns/default" 2>/dev/null || true
}

# inside COMMAND...: in the engine's network, where its published ports are.
inside() { nsenter --net="/run/netns/$NETNS" -- "$@"; }

have_image() { docker image inspect "$1" >/dev/null 2>&1; }

# Images under their usual names, made of Debian's packages and of the Swift toolchain that is installed here.
make_stand_ins() {
  local here=$ROOT/Scripts/lib/deploy
  have_image debian:bookworm-slim || stand_in_debian
  have_image postgres:15 || docker build -q --network=host -t postgres:15 "$here/postgres"
  have_image prom/prometheus:v2.53.2 || docker build -q --network=host -t prom/prometheus:v2.53.2 "$here/prometheus"
  have_image rabbitmq:3.13-management || docker build -q --network=host -t rabbitmq:3.13-management "$here/rabbitmq"
}

stand_in_debian() {
  local base=$ENGINE/base
  rm -rf -- "$base"
  debootstrap --variant=minbase bookworm "$base" "$(awk '/^URIs:/ { print $2; exit }' /etc/apt/sources.list.d/debian.sources)"
  rm -rf -- "$base"/var/cache/apt/archives/*.deb "$base"/var/lib/apt/lists/*
  cp /etc/apt/sources.list.d/debian.sources "$base/etc/apt/sources.list.d/"
  : >"$base/etc/apt/sources.list"
  printf '#!/bin/sh\nexit 101\n' >"$base/usr/sbin/policy-rc.d"
  chmod 755 "$base/usr/sbin/policy-rc.d"
  tar -C "$base" -c . | docker import -c 'CMD ["bash"]' - debian:bookworm-slim
  rm -rf -- "$base"
}

# The toolchain of this machine as swift:6.3-bookworm; packages come from where git's own settings send their URLs.
stand_in_swift() {
  local context home packages
  home=$(dirname -- "$(dirname -- "$(dirname -- "$(realpath -- "$(command -v swift)")")")")
  packages=$(git config --get-regexp '^url\..*\.insteadof$' 'https://github.com/' | sed -n '1s/^url\.\(.*\)\.insteadof .*/\1/p')
  context=$(mktemp -d "$ENGINE/swift.XXXXXX")
  cat >"$context/Dockerfile" <<END
FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates binutils git gcc libc6-dev \\
  libstdc++-12-dev libcurl4 libedit2 libxml2 libncurses6 libpython3.11 libsqlite3-0 libz3-4 pkg-config tzdata unzip \\
  zlib1g-dev && rm -rf /var/lib/apt/lists/*
COPY usr /usr
END
  local more=()
  if [[ -n $packages && -d $packages ]]; then
    cat >>"$context/Dockerfile" <<END
COPY ${packages#/} $packages
RUN git config --system url.$packages.insteadOf https://github.com/ && git config --system --add safe.directory '*'
END
    more=(-C / "${packages#/}")
  fi
  tar -c -C "$context" Dockerfile -C "$home" --exclude='usr/bin/lldb*' --exclude='usr/bin/sourcekit-lsp' \
    --exclude='usr/bin/clangd' --exclude='usr/bin/docc' --exclude='usr/bin/clang-tidy' --exclude='usr/lib/liblldb*' \
    --exclude='usr/lib/libsourcekitdInProc.so' --exclude='usr/lib/swift/embedded' \
    --exclude='usr/lib/swift_static/embedded' --exclude='usr/local' usr "${more[@]}" |
    docker build -q --network=host -t swift:6.3-bookworm -
  rm -rf -- "$context"
}
