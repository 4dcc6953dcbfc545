"""The function's execution environments, from outside: to stop or kill them in the middle of their work."""

import subprocess

import psutil

from waiting import until


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
        until("all of them are dead", lambda: all(map(is_dead, found)))
        return len(found)

    def _all(self):
        return [child for child in self.emulator.children(recursive=True) if child.name() == "bootstrap"]


def is_dead(process):
    """Gone, or a zombie that the emulator has yet to bury: those that had no work when they died."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


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
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
    return done.stdout
