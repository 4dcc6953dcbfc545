"""SQS queues, each with its dead-letter queue."""

import json
import secrets

CALL = 10  # SQS takes and gives so many messages a call


class Queue:
    """A queue that exists. `dead_letters` is the queue that it moves failed messages to, if it has one."""

    def __init__(self, sqs, url, dead_letters=None):
        self.sqs, self.url, self.dead_letters = sqs, url, dead_letters
        self.arn = self.attributes()["QueueArn"]
        self.name = self.arn.rpartition(":")[2]

    def attributes(self):
        return self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["All"])["Attributes"]

    def send(self, bodies, group=None):
        """Sends the bodies in order, and gives their message ids. A FIFO queue needs a group."""
        ids = []
        for start in range(0, len(bodies), CALL):
            part = bodies[start : start + CALL]
            entries = [{"Id": str(i), "MessageBody": body, **fifo_fields(group)} for i, body in enumerate(part)]
            answer = self.sqs.send_message_batch(QueueUrl=self.url, Entries=entries)
            assert not answer.get("Failed"), answer["Failed"]
            sent = {entry["Id"]: entry["MessageId"] for entry in answer["Successful"]}
            ids += [sent[entry["Id"]] for entry in entries]
        return ids

    def counts(self):
        """How many messages are visible, and how many are in somebody's hands."""
        attributes = self.attributes()
        names = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
        return tuple(int(attributes[name]) for name in names)

    def is_empty(self):
        return self.counts() == (0, 0)

    def take(self):
        """Receives and deletes all visible messages, with their attributes."""
        taken = []
        while True:
            answer = self.sqs.receive_message(
                QueueUrl=self.url,
                MaxNumberOfMessages=CALL,
                MessageSystemAttributeNames=["All"],
                MessageAttributeNames=["All"],
            )
            messages = answer.get("Messages", [])
            if not messages:
                return taken
            for message in messages:
                self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])
            taken += messages

    def set_visibility_timeout(self, seconds):
        self.sqs.set_queue_attributes(QueueUrl=self.url, Attributes={"VisibilityTimeout": str(seconds)})

    def delete(self):
        self.sqs.delete_queue(QueueUrl=self.url)
        if self.dead_letters:
            self.dead_letters.delete()


def fifo_fields(group):
    if group is None:
        return {}
    return {"MessageGroupId": group, "MessageDeduplicationId": secrets.token_hex(16)}


def new_queue(sqs, max_receive_count=3, visibility_timeout=5, fifo=False):
    """A fresh queue and its dead-letter queue."""
    name, ending = f"e2e-{secrets.token_hex(4)}", ".fifo" if fifo else ""
    kind = {"FifoQueue": "true"} if fifo else {}
    dead_letters = Queue(sqs, sqs.create_queue(QueueName=f"{name}-dead{ending}", Attributes=kind)["QueueUrl"])
    redrive = {"deadLetterTargetArn": dead_letters.arn, "maxReceiveCount": max_receive_count}
    attributes = {**kind, "VisibilityTimeout": str(visibility_timeout), "RedrivePolicy": json.dumps(redrive)}
    return Queue(sqs, sqs.create_queue(QueueName=name + ending, Attributes=attributes)["QueueUrl"], dead_letters)
