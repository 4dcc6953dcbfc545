"""psycopg 3, COPY. Neither idempotent nor able to tell which row Postgres refuses."""

import os

import psycopg
from records import COLUMNS, to_row

COPY = f"copy user_logins ({', '.join(COLUMNS)}) from stdin"

connection = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)


def handler(event, context):
    rows = [to_row(record) for record in event["Records"]]
    # One statement is a transaction of its own: no begin, no commit.
    with connection.cursor() as cursor, cursor.copy(COPY) as copy:
        for row in rows:
            copy.write_row(row)
    return {"batchItemFailures": []}
