"""Powertools' batch processor with an insert a record, one commit a batch."""

import os

import psycopg2
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from records import INSERT, to_row

connection = psycopg2.connect(os.environ["DATABASE_URL"])
processor = BatchProcessor(event_type=EventType.SQS)


def handler(event, context):
    with connection, connection.cursor() as cursor:

        def store(record: SQSRecord):
            cursor.execute(INSERT, to_row(record.raw_event))

        return process_partial_response(event=event, record_handler=store, processor=processor, context=context)
