"""The operator's tool `sqs-etl`, run as a user runs it."""

import signal
import subprocess
import tempfile

LIMIT = 120


class Tool:
    """`env` is all of the environment that it gets."""

    def __init__(self, program, env):
        if not program.is_file():
            raise FileNotFoundError(f"{program} is not built: cargo build --workspace --bins (make e2e does)")
        self.program, self.env, self.started = program, env, []

    def run(self, *arguments, input=None, **env):
        """To its end: `.returncode`, `.stdout`, `.stderr`. A variable that is None is unset."""
        pipe = subprocess.PIPE
        return subprocess.run(
            self._command(arguments), env=self._env(env), input=input or "", stdout=pipe, stderr=pipe, text=True, timeout=LIMIT
        )

    def start(self, *arguments, **env):
        """In the background, until it ends, `interrupt` ends it, or the test does."""
        self.started.append(Running(self._command(arguments), self._env(env)))
        return self.started[-1]

    def stop(self):
        for running in self.started:
            running.process.kill()
            running.process.wait()

    def _command(self, arguments):
        return [self.program, *map(str, arguments)]

    def _env(self, changes):
        return {name: value for name, value in {**self.env, **changes}.items() if value is not None}


class Running:
    """One run in the background."""

    def __init__(self, command, env):
        self.files = [tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")]
        stdout, stderr = self.files
        self.process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, text=True)

    def interrupt(self):
        """Ctrl-C; gives what `Tool.run` gives."""
        self.process.send_signal(signal.SIGINT)
        return self.end()

    def end(self):
        code = self.process.wait(timeout=LIMIT)
        for file in self.files:
            file.seek(0)
        return subprocess.CompletedProcess(self.process.args, code, *(file.read() for file in self.files))
