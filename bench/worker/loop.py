"""The script that sqs-etl replaces, made right: boto3 and psycopg2, one connection, ten messages at a time. It hashes without a
key, stores with `on conflict do nothing`, and deletes after the commit. Ends when the queue stayed empty for a second.

usage: loop.py QUEUE_URL DATABASE_URL
"""

import datetime
import hashlib
import json
import sys

import boto3
import psycopg2

INSERT = """insert into user_logins (user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date, message_id)
    values (%s, %s, %s, %s, %s, %s, %s, %s) on conflict do nothing"""


def main():
    queue_url, database_url = sys.argv[1:]
    sqs = boto3.client("sqs")
    connection = psycopg2.connect(database_url)
    while True:
        answer = sqs.receive_message(
            QueueUrl=queue_url,
            MaxNumberOfMessages=10,
            WaitTimeSeconds=1,
            MessageSystemAttributeNames=["SentTimestamp"],
        )
        messages = answer.get("Messages", [])
        if not messages:
            return
        with connection, connection.cursor() as cursor:
            cursor.executemany(INSERT, [row(message) for message in messages])
        handles = [{"Id": str(i), "ReceiptHandle": message["ReceiptHandle"]} for i, message in enumerate(messages)]
        sqs.delete_message_batch(QueueUrl=queue_url, Entries=handles)


def row(message):
    body = json.loads(message["Body"])
    version = body.get("app_version")
    sent = int(message["Attributes"]["SentTimestamp"]) / 1000
    return (
        body["user_id"],
        body.get("device_type"),
        masked(body["ip"]),
        masked(body["device_id"]),
        body.get("locale"),
        version and number(version),
        datetime.datetime.fromtimestamp(sent, datetime.timezone.utc).date(),
        message["MessageId"],
    )


def masked(value):
    return hashlib.sha256(value.encode()).hexdigest()


def number(version):
    major, minor, patch, *_ = [*map(int, version.split(".")), 0, 0]
    return major * 1_000_000 + minor * 1_000 + patch


if __name__ == "__main__":
    main()
