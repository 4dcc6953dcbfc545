"""Runs a program for as long as somebody holds our standard input, then kills it with all its children, and removes its
folder. So nothing stays behind, however the tests end: kill -9 included.

usage: tether.py FOLDER PROGRAM [ARGUMENT...]
"""

import os
import selectors
import shutil
import signal
import subprocess
import sys
import threading


def main():
    folder, *command = sys.argv[1:]
    # Ctrl-C reaches everybody at the terminal; whoever holds the input decides when the end has come.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_for_the_end(child)
    finally:
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        shutil.rmtree(folder, ignore_errors=True)
    return child.wait()


def wait_for_the_end(child):
    """Until the input is closed or the program has ended by itself."""
    ended, tell = os.pipe()
    threading.Thread(target=lambda: (child.wait(), os.close(tell)), daemon=True).start()
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        selector.register(ended, selectors.EVENT_READ)
        selector.select()


if __name__ == "__main__":
    sys.exit(main())
