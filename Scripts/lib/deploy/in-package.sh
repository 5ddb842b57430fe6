#!/bin/bash
# Runs in a container: installs /deb/hub.deb, looks at what it brings, removes it.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -y -q --no-install-recommends systemd man-db /deb/hub.deb
[[ $(hub --version) == "$1" ]]
hub --help | grep -q invite
# What dpkg leaves out of a slim image is not asked for.
bash -n /usr/share/bash-completion/completions/hub
dpkg -L hub-sync | grep -qx /usr/share/man/man1/hub.1.gz
dpkg-deb --fsys-tarfile /deb/hub.deb | tar -xO ./usr/share/man/man1/hub.1.gz | gzip -d >/tmp/hub.1
man --warnings -E UTF-8 -l /tmp/hub.1 2>/tmp/man.errors >/tmp/hub.txt
[[ ! -s /tmp/man.errors ]] || { cat /tmp/man.errors; exit 1; }
grep -q 'hub invite' /tmp/hub.txt
systemd-analyze verify --man=no /lib/systemd/system/hub@.service
exposure=$(systemd-analyze security --offline=yes --no-pager hub@.service | tail -n 1)
ldd /usr/bin/hub | grep -q 'not found' && { echo "a library is missing"; exit 1; }
# Debian's own package of the name `hub`, another program, does not take its place with the next upgrade.
apt-get upgrade -s | grep -q '^Inst hub' && { echo "an upgrade would replace it"; exit 1; }
dpkg --remove hub-sync
[[ ! -e /usr/bin/hub ]]
dpkg --purge hub-sync
dpkg -l hub-sync 2>/dev/null | grep -q '^ii' && exit 1
echo "${exposure#* }"
