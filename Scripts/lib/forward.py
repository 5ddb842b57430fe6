"""Forwards one loopback port to another; SIGUSR1 cuts the line (every connection is reset, new ones too), SIGUSR2 puts
it back. Writes `up` or `cut` to a file when that is so.    forward.py FILE LISTEN TARGET"""

import asyncio
import signal
import sys

state_file, listen_port, target_port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
lines = set()
up = True


async def pump(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def serve(near_reader, near_writer):
    ends = [near_writer]
    lines.add(near_writer)
    try:
        if up:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target_port)
            ends.append(far_writer)
            lines.add(far_writer)
            if up:
                tasks = [asyncio.create_task(pump(near_reader, far_writer)),
                         asyncio.create_task(pump(far_reader, near_writer))]
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
    except OSError:
        pass
    finally:
        for end in ends:
            lines.discard(end)
            end.transport.abort()


def turn(to_up):
    global up
    up = to_up
    if not up:
        for end in list(lines):
            end.transport.abort()
    with open(state_file, "w") as file:
        file.write("up" if up else "cut")


async def main():
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, turn, False)
    loop.add_signal_handler(signal.SIGUSR2, turn, True)
    server = await asyncio.start_server(serve, "127.0.0.1", listen_port)
    turn(True)
    async with server:
        await server.serve_forever()


asyncio.run(main())
