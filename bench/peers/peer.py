"""Runs one peer's Lambda handler for the benchmark.

usage: DATABASE_URL=... peer.py MODULE

A line on standard input asks for a run over a file of events, one a line; a line on standard output answers. Both are
JSON, as in bench/src/protocol.rs. The clock covers what Lambda's runtime and the handler do: event bytes to response bytes.
"""

import gc
import importlib
import importlib.metadata
import json
import platform
import sys
import time

PACKAGES = {
    "psycopg2_executemany": "psycopg2-binary",
    "psycopg2_execute_values": "psycopg2-binary",
    "psycopg3_copy": "psycopg",
    "asyncpg_copy": "asyncpg",
    "powertools_insert": "aws-lambda-powertools",
}


def main() -> None:
    name = sys.argv[1]
    handler = importlib.import_module(name).handler
    # What the imports made lives as long as the process: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    package = PACKAGES[name]
    answer({"ready": f"{package} {importlib.metadata.version(package)}, Python {platform.python_version()}"})
    for line in sys.stdin:
        with open(json.loads(line)["run"], "rb") as file:
            events = [line.rstrip(b"\n") for line in file]
        answer(run(handler, events))


def run(handler, events: list[bytes]) -> dict:
    gc.collect()
    stored, failed, error = 0, 0, None
    wall, cpu = time.perf_counter_ns(), time.process_time_ns()
    for event in events:
        try:
            event = json.loads(event)
            response = handler(event, None)
            json.dumps(response).encode()
            handed_back = len(response["batchItemFailures"])
            failed += handed_back
            stored += len(event["Records"]) - handed_back
        except Exception as raised:
            failed += len(event["Records"])
            error = error or type(raised).__name__
    wall, cpu = time.perf_counter_ns() - wall, time.process_time_ns() - cpu
    return {"wall_ns": wall, "cpu_ns": cpu, "stored": stored, "failed": failed, "error": error, "peak_kib": peak_kib()}


def peak_kib() -> int | None:
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    except OSError:
        return None


def answer(message: dict) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    main()
