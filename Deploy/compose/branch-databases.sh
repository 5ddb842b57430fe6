#!/bin/bash
# Run by the image when the data directory is made: one empty database a branch. One more later:
#   docker compose -f Deploy/compose.yaml exec branch-db createdb -U postgres branch_11
set -eu
for ((n = 1; n <= ${BRANCH_DATABASES:-10}; n++)); do
  psql -v ON_ERROR_STOP=1 -qU "${POSTGRES_USER:-postgres}" -d postgres -c "CREATE DATABASE branch_$n"
done
