#!/usr/bin/env python3
"""Loads a server on this machine and measures it: python3 scripts/serve/load.py URL IMAGE MODE [OPTIONS]

    python3 -m venv venv && venv/bin/pip install aiohttp==3.14.5
    venv/bin/python scripts/serve/load.py http://127.0.0.1:8080 photo.jpg closed --clients 1,4,16 --seconds 20
    venv/bin/python scripts/serve/load.py http://127.0.0.1:8080 photo.jpg open --times 10 --seconds 60
    venv/bin/python scripts/serve/load.py http://127.0.0.1:8080 photo.jpg drip --headers 1000 --bodies 100 --seconds 120

closed  each client sends its next image when it has the answer to the last: throughput and latency.
open    images are sent at a rate that does not depend on the answers, `--times` as fast as one after the other was measured, or `--rate`
        per second: goodput, latency of what is accepted, time until a refusal, /healthz beside it, memory.
drip    one client sends images one after the other, alone and then beside connections that send a byte of a header or of a body
        per second.

Prints JSON, times in milliseconds. What sends runs on the same cores as what answers, so figures are lower than the server's own; `--rate`,
`--times` and `--seconds` bound every run. TOKEN in the environment is sent where it is set. It refuses addresses of other machines.
"""

import argparse
import asyncio
import ipaddress
import json
import os
import random
import socket
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

HEADERS = {"Authorization": f"Bearer {os.environ['TOKEN']}"} if "TOKEN" in os.environ else {}
LONGEST = 600  # seconds, of any run
MOST = 20_000  # requests, of any run


def quantiles(seconds):
    """Median, 99th percentile and largest in milliseconds."""
    if not seconds:
        return None
    ordered = sorted(seconds)
    at = lambda share: round(1e3 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2)
    return {"count": len(ordered), "p50": at(0.5), "p99": at(0.99), "max": at(1)}


class Client:
    def __init__(self, url, image, query, multipart):
        self.url, self.image, self.query, self.multipart = url, image, query, multipart

    async def __aenter__(self):
        connector = aiohttp.TCPConnector(limit=0)
        self.session = aiohttp.ClientSession(connector=connector, headers=HEADERS, timeout=aiohttp.ClientTimeout(total=LONGEST))
        return self

    async def __aexit__(self, *_):
        await self.session.close()

    async def label(self):
        """(status, seconds, Retry-After); status 0 for a connection that broke."""
        began = time.perf_counter()
        try:
            data, headers = self.image, {"Content-Type": "application/octet-stream"}
            if self.multipart:
                data, headers = aiohttp.FormData(), None
                data.add_field("image", self.image, filename="image")
            async with self.session.post(f"{self.url}/v1/segment?{self.query}", data=data, headers=headers) as answer:
                await answer.read()
                return answer.status, time.perf_counter() - began, answer.headers.get("Retry-After")
        except aiohttp.ClientError:
            return 0, time.perf_counter() - began, None

    async def healthz(self, end):
        """Times of /healthz, asked ten times a second."""
        times = []
        while time.perf_counter() < end:
            began = time.perf_counter()
            async with self.session.get(f"{self.url}/healthz") as answer:
                await answer.read()
            times.append(time.perf_counter() - began)
            await asyncio.sleep(0.1)
        return times

    async def metrics(self):
        """Values of /metrics that have no labels, by name."""
        async with self.session.get(f"{self.url}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line and line[0] != "#" and "{" not in line)
        return {name.removeprefix("structtoken_"): float(value) for name, value in pairs}

    async def watch(self, end):
        """What /metrics says, once a second."""
        seen = []
        while time.perf_counter() < end:
            seen.append(await self.metrics())
            await asyncio.sleep(1)
        return seen

    async def one_by_one(self, clients, seconds):
        """Closed loop: (statuses, times of those that were answered, seconds that it took)."""
        began = time.perf_counter()
        answers = []

        async def loop():
            while time.perf_counter() - began < seconds and len(answers) < MOST:
                status, took, wait = await self.label()
                answers.append((status, took))
                if status == 429:
                    await asyncio.sleep(float(wait or 1))

        await asyncio.gather(*(loop() for _ in range(clients)))
        return answers, time.perf_counter() - began


def count(answers):
    found = {}
    for status, *_ in answers:
        found[str(status)] = found.get(str(status), 0) + 1
    return found


async def closed(client, options):
    await client.label()
    rows = []
    for clients in options.clients:
        answers, took = await client.one_by_one(clients, options.seconds)
        good = [time for status, time in answers if status == 200]
        rows.append({"clients": clients, "images_per_second": round(len(good) / took, 3), "latency": quantiles(good), "statuses": count(answers)})
    resident = (await client.metrics()).get("resident_memory_bytes")  # Other servers than this one have no such line.
    return {"closed": rows, "resident_mb": resident and round(resident / 1e6, 1)}


async def open_loop(client, options):
    await client.label()
    before = await client.metrics()
    answers, took = await client.one_by_one(1, min(options.seconds, 15))
    service = [time for status, time in answers if status == 200]
    if not service:
        sys.exit(f"no image was labelled: {count(answers)}")
    alone = len(service) / took
    rate = options.rate or options.times * alone
    total = min(MOST, int(rate * options.seconds))
    began = time.perf_counter()
    end = began + total / rate
    beside = asyncio.gather(client.healthz(end), client.watch(end))
    tasks, at = [], began
    chance = random.Random(1)
    for _ in range(total):
        # Times between requests as those of independent clients.
        at += chance.expovariate(rate)
        await asyncio.sleep(max(0, at - time.perf_counter()))
        tasks.append(asyncio.create_task(client.label()))
    sent = time.perf_counter() - began
    answers = await asyncio.gather(*tasks)
    took = time.perf_counter() - began
    health, seen = await beside
    good = [time for status, time, _ in answers if status == 200]
    refused = [time for status, time, _ in answers if status == 429]
    peak = max(one["queue_cost"] for one in seen)
    speed = max(one["megapixels_per_second"] for one in seen)
    return {
        "open": {
            "one_by_one_per_second": round(alone, 3),
            "asked_per_second": round(total / sent, 3),
            "goodput_per_second": round(len(good) / took, 3),
            "accepted": quantiles(good),
            "refused": quantiles(refused),
            "retry_after_s": sorted({int(wait) for status, _, wait in answers if status == 429 and wait}),
            "statuses": count(answers),
            "healthz": quantiles(health),
            "queue_peak_megapixels": peak,
            "queue_at_the_measured_rate": round(1e3 * peak / speed, 1) if speed else None,
            "resident_mb": {"before": round(before["resident_memory_bytes"] / 1e6, 1), "peak": round(max(one["resident_memory_bytes"] for one in seen) / 1e6, 1)},
        }
    }


async def drip(client, options):
    host, port = urlsplit(client.url).hostname, urlsplit(client.url).port or 80
    alone, _ = await client.one_by_one(1, options.seconds / 2)
    end = time.perf_counter() + options.seconds
    lasted = {"headers": [], "bodies": []}
    start = {
        "headers": b"GET /v1/models HTTP/1.1\r\nHost: drip\r\nX-Slow: ",
        "bodies": b"POST /v1/segment HTTP/1.1\r\nHost: drip\r\nContent-Length: 1000000\r\n" + "".join(f"{k}: {v}\r\n" for k, v in HEADERS.items()).encode() + b"\r\n",
    }

    async def slow(kind):
        began = time.perf_counter()
        try:
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(start[kind])
            while time.perf_counter() < end:
                writer.write(b"a")
                await writer.drain()
                try:
                    if not await asyncio.wait_for(reader.read(4096), 1):
                        break
                except asyncio.TimeoutError:
                    continue
            else:
                return
        except OSError:
            pass
        lasted[kind].append(time.perf_counter() - began)

    slow_ones = [asyncio.create_task(slow(kind)) for kind, number in [("headers", options.headers), ("bodies", options.bodies)] for _ in range(number)]
    beside, _ = await client.one_by_one(1, options.seconds)
    await asyncio.gather(*slow_ones)
    return {
        "drip": {
            "alone": quantiles([time for status, time in alone if status == 200]),
            "beside": quantiles([time for status, time in beside if status == 200]),
            "statuses": count(beside),
            "closed_after": {kind: quantiles(times) for kind, times in lasted.items()},
            "never_closed": {"headers": options.headers - len(lasted["headers"]), "bodies": options.bodies - len(lasted["bodies"])},
        }
    }


def local(url):
    host = urlsplit(url).hostname or ""
    found = {info[4][0] for info in socket.getaddrinfo(host, None)}
    return all(ipaddress.ip_address(address).is_loopback for address in found)


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("image", type=Path)
    parser.add_argument("mode", choices=["closed", "open", "drip"])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--clients", type=lambda text: [int(word) for word in text.split(",")], default=[1, 4, 16])
    parser.add_argument("--times", type=float, default=10)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--headers", type=int, default=1000)
    parser.add_argument("--bodies", type=int, default=100)
    parser.add_argument("--query", default="output=npy")
    parser.add_argument("--multipart", action="store_true", help="send the image as a field of a form, and not as the body")
    options = parser.parse_args()
    if not local(options.url):
        sys.exit(f"{options.url} is not on this machine")
    options.seconds = min(options.seconds, LONGEST)
    async with Client(options.url.rstrip("/"), options.image.read_bytes(), options.query, options.multipart) as client:
        mode = {"closed": closed, "open": open_loop, "drip": drip}[options.mode]
        print(json.dumps(await mode(client, options), indent=2))


if __name__ == "__main__":
    asyncio.run(main())
