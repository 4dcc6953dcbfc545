"""The function's execution environments, from outside: to stop or kill them in the middle of their work."""

import subprocess

import psutil


class Processes:
    """Children of an emulator of ours: ministack runs the function's binary itself."""

    def __init__(self, emulator):
        self.emulator = psutil.Process(emulator.process.pid)

    def freeze(self):
        """Stops them where they are. Gives how many."""
        return len([process.suspend() for process in self._all()])

    def kill(self):
        """kill -9, and sees them dead. Gives how many."""
        found = self._all()
        for process in found:
            process.kill()
        _, alive = psutil.wait_procs(found, timeout=30)
        assert not alive, f"{alive} outlive kill -9"
        return len(found)

    def _all(self):
        return [child for child in self.emulator.children(recursive=True) if child.name() == "bootstrap"]


class Containers:
    """LocalStack runs each in a container, whose name ends in the function's and an id."""

    def __init__(self, function):
        self.filter = f"name=lambda-{function.lower()}"

    def freeze(self):
        return self._each("pause")

    def kill(self):
        return self._each("kill")

    def _each(self, verb):
        ids = docker("ps", "--quiet", "--filter", self.filter).split()
        if ids:
            docker(verb, *ids)
        return len(ids)


def docker(*arguments):
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout
