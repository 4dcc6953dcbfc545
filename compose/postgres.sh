#!/bin/sh
# What Postgres holds once it is healthy: the tables, and the role that the secret in compose/localstack.sh names, with
# what it needs and no more. compose.yaml has the image run it once, while the database is still empty. By hand, with
# PGHOST, PGPORT and the like of a server of yours:
#
#   MIGRATIONS=migrations compose/postgres.sh
set -eu

run() {
    psql --quiet --no-psqlrc --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" \
        --dbname "${POSTGRES_DB:-postgres}" "$@"
}

for file in "${MIGRATIONS:-/migrations}"/*.sql; do
    run --file "$file"
done
run <<'END'
create role sqs_etl login password 'local-use-only';
grant insert, select (message_id) on user_logins to sqs_etl;
END
