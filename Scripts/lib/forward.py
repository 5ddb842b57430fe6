"""Forwards one loopback port to another, well or badly.    forward.py FILE LISTEN TARGET

SIGUSR1 cuts the line, SIGUSR2 puts it back. More is asked for at the socket FILE.control, a line each, answered `ok`:

    up            as it should be; what stood still goes on
    cut           every connection is reset, new ones too
    reset         every connection is reset; new ones are well
    hole          nothing passes, nothing is refused: a link that is half open
    delay MS      every piece that passes waits as long
    throttle N    bytes a second, each way
    corrupt N     one bit is another one in every N-th piece, by chance

FILE says what the line is."""

import asyncio
import os
import random
import signal
import sys

state_file, listen_port, target_port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
MODES = {"up": 0, "cut": 0, "reset": 0, "hole": 0, "delay": 1, "throttle": 1, "corrupt": 1}
lines = set()
mode, value = "up", 0
changed = asyncio.Event()


def spoilt(data):
    data = bytearray(data)
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(data)


async def pump(reader, writer):
    while data := await reader.read(16384):
        while mode == "hole":
            await changed.wait()
        if mode == "delay":
            await asyncio.sleep(value / 1000)
        elif mode == "throttle":
            await asyncio.sleep(len(data) / value)
        elif mode == "corrupt" and random.randrange(value) == 0:
            data = spoilt(data)
        writer.write(data)
        await writer.drain()


async def serve(near_reader, near_writer):
    ends = [near_writer]
    lines.add(near_writer)
    try:
        while mode == "hole":
            await changed.wait()
        if mode != "cut":
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target_port)
            ends.append(far_writer)
            lines.add(far_writer)
            if mode != "cut":
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


def turn(new_mode, new_value=0):
    global mode, value, changed
    if new_mode in ("cut", "reset"):
        for end in list(lines):
            end.transport.abort()
    mode, value = ("up" if new_mode == "reset" else new_mode), new_value
    changed.set()
    changed = asyncio.Event()
    with open(state_file, "w") as file:
        file.write(mode)


async def obey(reader, writer):
    while words := (await reader.readline()).decode().split():
        name, *values = words
        if MODES.get(name) == len(values) and all(v.isdigit() and int(v) > 0 for v in values):
            turn(name, *map(int, values))
            answer = "ok"
        else:
            answer = "what?"
        writer.write(f"{answer}\n".encode())
        await writer.drain()
    writer.close()


async def main():
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, turn, "cut")
    loop.add_signal_handler(signal.SIGUSR2, turn, "up")
    if os.path.exists(state_file + ".control"):
        os.unlink(state_file + ".control")
    await asyncio.start_unix_server(obey, state_file + ".control")
    server = await asyncio.start_server(serve, "127.0.0.1", listen_port)
    turn("up")
    async with server:
        await server.serve_forever()


asyncio.run(main())
