"""psycopg2, `executemany`, one commit a batch."""

import os

import psycopg2
from records import INSERT, to_row

connection = psycopg2.connect(os.environ["DATABASE_URL"])


def handler(event, context):
    rows = [to_row(record) for record in event["Records"]]
    with connection, connection.cursor() as cursor:
        cursor.executemany(INSERT, rows)
    return {"batchItemFailures": []}
