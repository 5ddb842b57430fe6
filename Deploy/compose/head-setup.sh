#!/bin/sh
# Makes a database the head office, tracks tables and lets branches join with the secret that they have too. Run again
# it does what is missing. HUB_TRACK: TABLE:DIRECTION …; more options: `hub track` by hand.
set -eu
# A database or a broker that is starting is waited for here: who restarts this waits longer each time. Not a mistake in
# what hub was told (2).
left=60
until hub init ${HUB_QUEUE_TYPE:+--queue-type "$HUB_QUEUE_TYPE"}; do
  [ $? -ne 2 ] || exit 2
  left=$((left - 1))
  [ "$left" -gt 0 ]
  sleep 2
done
tracked=$(hub tables --json)
for entry in ${HUB_TRACK:-}; do
  table=${entry%:*}
  case $table in *.*) name=$table ;; *) name=public.$table ;; esac
  case $tracked in *"\"id\":\"$name\""*) continue ;; esac
  hub track "$table" --direction "${entry##*:}"
done
# The token is not needed: the branches have the secret, and the broker's URL, from their environment.
hub invite branch --reusable --secret-file "${JOIN_SECRET_FILE:-/run/secrets/join-secret}" --expires 365d >/dev/null
hub tables
