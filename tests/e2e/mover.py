"""SQS's own moving of dead letters, which ministack lacks: an endpoint in front of the emulator that plays these four calls
and passes on all others. It does what SQS's reference says of them; whether SQS does so is not proved here.

Time is counted in questions: each `ListMessageMoveTasks` finds one more message moved.
"""

import http.client
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

ORIGIN_UNKNOWN = "CouldNotDetermineMessageSource"


class Mover:
    """`.endpoint`; `.task` is the entry of the latest task, or None."""

    def __init__(self, emulator, queue):
        self.emulator, self.queue = emulator, queue
        self.task = self.to = None
        # Set this, and the next task fails so.
        self.failure = None
        handler = type("Handler", (Handler,), {"mover": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    def list_dead_letter_source_queues(self, request):
        return {"queueUrls": [self.queue.url]}

    def start_message_move_task(self, request):
        self.to = request.get("DestinationArn", self.queue.arn)
        self.task = {
            "TaskHandle": "task-1",
            "Status": "RUNNING",
            "SourceArn": request["SourceArn"],
            "ApproximateNumberOfMessagesMoved": 0,
            "ApproximateNumberOfMessagesToMove": sum(self.queue.dead_letters.counts()),
            "StartedTimestamp": 1_800_000_000_000,
            "Rate": request.get("MaxNumberOfMessagesPerSecond"),
        }
        return {"TaskHandle": "task-1"}

    def list_message_move_tasks(self, request):
        if self.task is None:
            return {}
        if self.task["Status"] == "RUNNING":
            self.move_one()
        hidden = () if self.task["Status"] == "RUNNING" else ("TaskHandle",)
        return {"Results": [{name: value for name, value in self.task.items() if name not in (*hidden, "Rate")}]}

    def cancel_message_move_task(self, request):
        assert request == {"TaskHandle": "task-1"}, request
        self.task["Status"] = "CANCELLED"
        return {"ApproximateNumberOfMessagesMoved": self.task["ApproximateNumberOfMessagesMoved"]}

    def move_one(self):
        dead_letters, sqs = self.queue.dead_letters, self.queue.sqs
        messages = sqs.receive_message(QueueUrl=dead_letters.url).get("Messages", [])
        if self.failure:
            self.task.update(Status="FAILED", FailureReason=self.failure)
        elif not messages:
            self.task["Status"] = "COMPLETED"
        for message in [] if self.failure else messages:
            url = sqs.get_queue_url(QueueName=self.to.rpartition(":")[2])["QueueUrl"]
            sqs.send_message(QueueUrl=url, MessageBody=message["Body"])
            sqs.delete_message(QueueUrl=dead_letters.url, ReceiptHandle=message["ReceiptHandle"])
            self.task["ApproximateNumberOfMessagesMoved"] += 1


class Handler(BaseHTTPRequestHandler):
    mover: Mover
    protocol_version = "HTTP/1.1"
    PLAYED = {
        "ListDeadLetterSourceQueues": Mover.list_dead_letter_source_queues,
        "StartMessageMoveTask": Mover.start_message_move_task,
        "ListMessageMoveTasks": Mover.list_message_move_tasks,
        "CancelMessageMoveTask": Mover.cancel_message_move_task,
    }

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        call = self.headers["X-Amz-Target"].partition(".")[2]
        if call in self.PLAYED:
            self.answer(200, json.dumps(self.PLAYED[call](self.mover, json.loads(body))).encode())
        else:
            self.answer(*self.pass_on(body))

    def pass_on(self, body):
        connection = http.client.HTTPConnection(urlsplit(self.mover.emulator.endpoint).netloc, timeout=60)
        try:
            connection.request("POST", self.path, body, dict(self.headers))
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass
