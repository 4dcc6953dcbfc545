"""psycopg2, `execute_values` with a thousand rows a statement, one commit a batch."""

import os

import psycopg2
from psycopg2.extras import execute_values
from records import COLUMNS, to_row

INSERT = f"insert into user_logins ({', '.join(COLUMNS)}) values %s on conflict (message_id) do nothing"

connection = psycopg2.connect(os.environ["DATABASE_URL"])


def handler(event, context):
    rows = [to_row(record) for record in event["Records"]]
    with connection, connection.cursor() as cursor:
        execute_values(cursor, INSERT, rows, page_size=1000)
    return {"batchItemFailures": []}
