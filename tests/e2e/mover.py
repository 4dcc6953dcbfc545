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
    """`.endpoint`; `.task` is the entry of the latest task, or None.

    What may be set: `failure`, and the next task fails so; `refusals`, statuses and codes by call, of which each request
    from the start of a task on gets one; `lag`, how many answers tell of one message less than the ended task moved;
    `ends_first`, and a task is through before a request to call it off arrives; `ended_by`, a function that ends the
    task at its second message and gives another's entry, which is listed before it.
    """

    def __init__(self, emulator, queue):
        self.emulator, self.queue = emulator, queue
        self.task = self.to = None
        self.failure = self.ended_by = self.another = None
        self.refusals, self.lag, self.ends_first, self.started = {}, 0, False, 0
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
        self.started += 1
        self.task = {
            "TaskHandle": f"task-{self.started}",
            "Status": "RUNNING",
            "SourceArn": request["SourceArn"],
            "ApproximateNumberOfMessagesMoved": 0,
            "ApproximateNumberOfMessagesToMove": sum(self.queue.dead_letters.counts()),
            "StartedTimestamp": 1_800_000_000_000 + self.started,
            "Rate": request.get("MaxNumberOfMessagesPerSecond"),
        }
        return {"TaskHandle": self.task["TaskHandle"]}

    def list_message_move_tasks(self, request):
        if self.task is None:
            return {}
        if self.task["Status"] == "RUNNING":
            self.move_one()
        if self.ended_by and self.another is None and self.task["ApproximateNumberOfMessagesMoved"] > 1:
            self.another = self.ended_by()
        hidden = {"Rate"} if self.task["Status"] == "RUNNING" else {"Rate", "TaskHandle"}
        entry = {name: value for name, value in self.task.items() if name not in hidden}
        if entry["Status"] != "RUNNING" and self.lag:
            self.lag -= 1
            entry["ApproximateNumberOfMessagesMoved"] -= 1
        listed = [entry] if self.another is None else [self.another, entry]
        return {"Results": listed[: request.get("MaxResults", 1)]}

    def cancel_message_move_task(self, request):
        assert request == {"TaskHandle": self.task["TaskHandle"]}, request
        while self.ends_first and self.task["Status"] == "RUNNING":
            self.move_one()
        if self.task["Status"] != "RUNNING":
            raise Refusal(400, "ResourceNotFoundException")
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


class Refusal(Exception):
    """An answer that is an error: its status and code."""


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
            self.answer(*self.play(call, json.loads(body)))
        else:
            self.answer(*self.pass_on(body))

    def play(self, call, request):
        try:
            if self.mover.task and self.mover.refusals.get(call):
                raise Refusal(*self.mover.refusals[call].pop(0))
            return 200, json.dumps(self.PLAYED[call](self.mover, request)).encode()
        except Refusal as refusal:
            status, code = refusal.args
            return status, json.dumps({"__type": code}).encode()

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
