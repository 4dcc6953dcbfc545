"""asyncpg, binary COPY. Neither idempotent nor able to tell which row Postgres refuses."""

import asyncio
import os

import asyncpg
from records import COLUMNS, to_row

loop = asyncio.new_event_loop()
connection = loop.run_until_complete(asyncpg.connect(os.environ["DATABASE_URL"]))


def handler(event, context):
    rows = [to_row(record) for record in event["Records"]]
    loop.run_until_complete(connection.copy_records_to_table("user_logins", records=rows, columns=COLUMNS))
    return {"batchItemFailures": []}
