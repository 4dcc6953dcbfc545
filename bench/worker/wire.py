"""A wire to the emulator that takes its time, as the one to SQS does.

usage: wire.py PORT DELAY_MS      prints its own port, ends with its standard input
"""

import asyncio
import sys


async def main():
    port, delay = int(sys.argv[1]), float(sys.argv[2]) / 1000

    async def serve(reader, writer):
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)
        # All of it on the way there: what counts is the round trip.
        await asyncio.gather(carry(reader, there_writer, delay), carry(there_reader, writer, 0))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()


async def carry(reader, writer, delay):
    loop = asyncio.get_running_loop()
    try:
        while data := await reader.read(1 << 16):
            if delay:
                loop.call_later(delay, writer.write, data)
            else:
                writer.write(data)
                await writer.drain()
        loop.call_later(delay, writer.close)
    except ConnectionError:
        writer.close()


if __name__ == "__main__":
    asyncio.run(main())
