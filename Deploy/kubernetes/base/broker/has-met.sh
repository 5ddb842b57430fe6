#!/bin/sh
# Whether this broker is a member of a cluster of so many nodes, whether they run now or not.
set -eu
status=$(rabbitmqctl -q cluster_status --formatter json)
members=$(printf %s "$status" | tr -d ' \n' | sed 's/.*"disk_nodes":\[\([^]]*\)\].*/\1/' | tr ',' '\n' | grep -c @)
[ "$members" -ge "$1" ]
