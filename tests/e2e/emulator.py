"""The AWS emulator: ministack, started here, or one that runs already at an endpoint."""

import os
import socket
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import boto3
from botocore.config import Config

from waiting import until

REGION = "us-east-1"
KEY = "test"
TETHER = Path(__file__).with_name("tether.py")
PORTS_TRIED = 5


class Emulator:
    """AWS's APIs at an endpoint. `env` is the environment of a child process that shall use it, and nothing of AWS."""

    def __init__(self, endpoint):
        self.endpoint = endpoint
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/"),
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": KEY,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            # Nobody's profile may lead a test to a real account.
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def client(self, service):
        """A boto3 client, such as `client("sqs")`."""
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=KEY,
            aws_secret_access_key=KEY,
            config=Config(retries={"total_max_attempts": 1}),
        )

    def output(self):
        """What it has printed so far; of one that was not started here nobody knows."""
        return ""

    def stop(self):
        """One that was not started here is left alone."""


class Ministack(Emulator):
    """A ministack of our own on a free port of 127.0.0.1, from this Python's virtual environment."""

    def __init__(self):
        for _ in range(PORTS_TRIED):
            port = free_port()
            self.log = tempfile.TemporaryFile()
            self.process = start(port, self.log)
            super().__init__(f"http://127.0.0.1:{port}")
            if until("ministack is healthy or ended", self._settled, 60) == "healthy":
                return
        raise RuntimeError(f"ministack did not start:\n{self.output()}")

    def _settled(self):
        if self.process.poll() is not None:
            return "ended"
        try:
            with urllib.request.urlopen(f"{self.endpoint}/_ministack/health", timeout=5) as answer:
                return "healthy" if answer.status == 200 else None
        except OSError:
            return None

    def output(self):
        return os.pread(self.log.fileno(), 1 << 24, 0).decode(errors="replace")

    def stop(self):
        self.process.stdin.close()
        self.process.wait(timeout=30)


def start(port, log):
    """Starts it on a tether. Its environment is all that the deployed function inherits of ours."""
    folder = tempfile.mkdtemp(prefix="sqs-etl-e2e-")
    env = {
        "PATH": os.environ["PATH"],
        "HOME": folder,
        "TMPDIR": folder,
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "MINISTACK_HOST": "127.0.0.1",
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "LAMBDA_EXECUTOR": "local",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }
    program = Path(sys.executable).with_name("ministack")
    command = [sys.executable, TETHER, folder, program]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=env)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
