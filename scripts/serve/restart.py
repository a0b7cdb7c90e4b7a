#!/usr/bin/env python3
"""Stops and reloads a server of its own under load: python3 scripts/serve/restart.py BINARY MODEL IMAGE [--stops 20] [--reloads 100]

    venv/bin/pip install aiohttp==3.14.5
    venv/bin/python scripts/serve/restart.py target/release/structtoken runs/streets/model.safetensors photo.png

Stops: clients send images as fast as they are answered; SIGTERM comes at a random moment. Every request whose connection was accepted
must be answered with 200, 429 or 503, the process must end with 0, and /readyz must answer 503 soon after the signal.
Reloads: the model is loaded again and again while clients send images; every tenth file is damaged and must be refused, and no
request may fail. Prints JSON: what became of the requests, times in milliseconds, resident memory in MB.
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import socket
import tempfile
import time
from pathlib import Path

import aiohttp


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    def __init__(self, binary, model, *options):
        self.port = free_port()
        self.command = [binary, "serve", f"m={model}", "--bind", f"127.0.0.1:{self.port}", *options]
        self.url = f"http://127.0.0.1:{self.port}"

    async def __aenter__(self):
        null = asyncio.subprocess.DEVNULL
        self.process = await asyncio.create_subprocess_exec(*self.command, stdout=null, stderr=null)
        async with aiohttp.ClientSession() as session:
            for _ in range(600):
                try:
                    async with session.get(f"{self.url}/readyz") as answer:
                        if answer.status == 200:
                            return self
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.05)
        raise SystemExit("the server does not become ready")

    async def __aexit__(self, *_):
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    def resident_mb(self):
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmRSS"))


async def send(server, image, found, until):
    """One client on one connection after the other; a request counts as accepted once its connection stands."""
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        while not until.is_set():
            try:
                async with session.post(f"{server.url}/v1/segment?output=npy", data=image) as answer:
                    await answer.read()
                    found[str(answer.status)] = found.get(str(answer.status), 0) + 1
                    if answer.status == 503:
                        return
            except aiohttp.ClientConnectorError:
                return  # It does not listen any more.
            except aiohttp.ClientError as error:
                name = f"lost: {type(error).__name__}"
                found[name] = found.get(name, 0) + 1


async def unready(server, began):
    """Milliseconds until a connection that was open before hears that the server is not ready."""
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{server.url}/readyz"):
            pass
        await began.wait()
        start = time.perf_counter()
        while True:
            try:
                async with session.get(f"{server.url}/readyz") as answer:
                    if answer.status == 503:
                        return 1e3 * (time.perf_counter() - start)
            except aiohttp.ClientError:
                return None
            await asyncio.sleep(0.002)


async def stops(options, image):
    found, times, codes, drained = {}, [], [], []
    chance = random.Random(1)
    for _ in range(options.stops):
        async with Server(options.binary, options.model, "--drain-delay", "1") as server:
            until, began = asyncio.Event(), asyncio.Event()
            clients = [asyncio.create_task(send(server, image, found, until)) for _ in range(options.clients)]
            watch = asyncio.create_task(unready(server, began))
            await asyncio.sleep(chance.uniform(0.5, 2))
            server.process.send_signal(signal.SIGTERM)
            began.set()
            start = time.perf_counter()
            codes.append(await asyncio.wait_for(server.process.wait(), 120))
            drained.append(1e3 * (time.perf_counter() - start))
            until.set()
            await asyncio.gather(*clients)
            times.append(await watch)
    heard = [time for time in times if time is not None]
    return {"requests": found, "exit_codes": sorted(set(codes)), "unready_after_ms": {"heard": len(heard), "max": max(heard, default=None)},
            "ended_after_ms": {"max": max(drained)}}


async def reloads(options, image):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        model, token = folder / "model.safetensors", folder / "admin"
        shutil.copy(options.model, model)
        token.write_text("secret-of-this-run-alone")
        token.chmod(0o600)
        good = model.read_bytes()
        damaged = good[: len(good) // 2]
        found, loads, memory = {}, {}, []
        async with Server(options.binary, model, "--admin-token-file", str(token)) as server:
            until = asyncio.Event()
            clients = [asyncio.create_task(send(server, image, found, until)) for _ in range(options.clients)]
            await asyncio.sleep(2)
            async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token.read_text()}"}) as session:
                for number in range(options.reloads):
                    beside = folder / "beside"
                    beside.write_bytes(damaged if number % 10 == 9 else good)
                    os.replace(beside, model)
                    async with session.post(f"{server.url}/v2/repository/models/m/load") as answer:
                        await answer.read()
                        kind = f"{'damaged' if number % 10 == 9 else 'good'}: {answer.status}"
                        loads[kind] = loads.get(kind, 0) + 1
                    memory.append(round(server.resident_mb(), 1))
            until.set()
            await asyncio.gather(*clients)
        tenth = max(1, len(memory) // 10)
        return {"requests": found, "loads": loads, "resident_mb": {"first_tenth_max": max(memory[:tenth]), "last_tenth_max": max(memory[-tenth:]), "max": max(memory)}}


async def main():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("binary")
    parse.add_argument("model", type=Path)
    parse.add_argument("image", type=Path)
    parse.add_argument("--stops", type=int, default=20)
    parse.add_argument("--reloads", type=int, default=100)
    parse.add_argument("--clients", type=int, default=8)
    options = parse.parse_args()
    image = options.image.read_bytes()
    print(json.dumps({"stops": await stops(options, image) if options.stops else None,
                      "reloads": await reloads(options, image) if options.reloads else None}, indent=2))


if __name__ == "__main__":
    asyncio.run(main())
