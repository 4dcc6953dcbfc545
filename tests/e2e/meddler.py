"""A server between a client and the emulator that hands requests on, unless it is told to do something else with them."""

import json
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Meddler:
    """`answer(action, request)` gives a dictionary to answer with, a status or an error's code to refuse with, or None to hand
    on. `calls` has the action of each request."""

    def __init__(self, endpoint, answer):
        self.answer, self.calls = answer, []
        meddler = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                action = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
                meddler.calls.append(action)
                status, answer = meddler.decide(endpoint, action, body, self.headers)
                self.send_response(status)
                self.send_header("Content-Type", "application/x-amz-json-1.0")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                """Nobody reads it."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def decide(self, endpoint, action, body, headers):
        instead = self.answer(action, json.loads(body))
        if isinstance(instead, int):
            return instead, b'{"__type":"AccessDenied"}' if instead == 403 else b'{"__type":"InternalError"}'
        if isinstance(instead, str):
            return 400, json.dumps({"__type": instead}).encode()
        if instead is not None:
            return 200, json.dumps(instead).encode()
        request = urllib.request.Request(endpoint, body, {name: headers[name] for name in headers if name != "Host"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as refusal:
            return refusal.code, refusal.read()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
