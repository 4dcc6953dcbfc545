"""`sqs-etl worker` as a process: started, asked to stop, killed, and what it says."""

import json
import signal
import subprocess
import tempfile

from waiting import until

MASKING_KEY = "0123456789abcdef0123456789abcdef"


class Worker:
    """A worker on a queue. Its log goes to a file, so that it never waits for a reader."""

    def __init__(self, program, emulator, queue, database_url, *options, **variables):
        if not program.is_file():
            raise FileNotFoundError(f"{program} is not built: cargo build --workspace --bins (make e2e does)")
        self.out, self.err = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        env = {**emulator.env, "DATABASE_URL": database_url, "MASKING_KEY": MASKING_KEY, **variables}
        command = [program, "worker", "--queue-url", queue.url, *map(str, options)]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.out, stderr=self.err, env=env)

    def wait(self, limit=60):
        """Its exit code."""
        return self.process.wait(timeout=limit)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)

    def kill(self):
        self.process.kill()
        self.process.wait(timeout=30)

    def output(self):
        """All that it has said, on both streams."""
        return read(self.out) + read(self.err)

    def lines(self, message):
        """Its log lines with this constant sentence."""
        # The last line may be on its way.
        complete = read(self.out).splitlines(keepends=True)
        lines = [json.loads(line) for line in complete if line.endswith("\n")]
        return [line for line in lines if line.get("message") == message]

    def total(self, count):
        """The sum of one count, such as `committed`, over all batches."""
        return sum(line[count] for line in self.lines("batch done"))

    def wait_for(self, message, limit=30):
        until(f"the worker says {message!r}", lambda: self.lines(message) or self.process.poll() is not None, limit)
        assert self.lines(message), f"it ended without saying {message!r}:\n{self.output()}"


def read(file):
    file.seek(0)
    return file.read().decode()
