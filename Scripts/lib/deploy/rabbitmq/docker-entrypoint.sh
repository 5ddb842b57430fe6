#!/bin/bash
set -euo pipefail
if [[ "$1" == rabbitmq* ]] && [ "$(id -u)" = 0 ]; then
  [ "$1" = rabbitmq-server ] && find /var/lib/rabbitmq \! -user rabbitmq -exec chown rabbitmq '{}' +
  exec setpriv --reuid=rabbitmq --regid=rabbitmq --init-groups "${BASH_SOURCE[0]}" "$@"
fi
if [ -n "${RABBITMQ_ERLANG_COOKIE:-}" ] && [ ! -s ~/.erlang.cookie ]; then
  (umask 077; printf %s "$RABBITMQ_ERLANG_COOKIE" >~/.erlang.cookie)
fi
exec "$@"
