"""A service under load: requests a second, times, memory, and a checkpoint that is replaced meanwhile.

    python benchmarks/serve_load.py --checkpoint saved/....pth --clients 200 --seconds 60 --workers 2
    python benchmarks/serve_load.py --checkpoint saved/....pth --clients 200 --seconds 60 --swap 10
    python benchmarks/serve_load.py --checkpoint saved/....pth --clients 50 --requests 100000

Starts ``recbole-rlmrec serve`` on a copy of the checkpoint. Each client asks for lists of ten of users drawn at random,
one after another on one connection, and every twentieth time for the neighbours of an item. Clients and service share
the machine. With ``--swap`` the checkpoint's file is written again every so many seconds. Prints a row of a table.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import psutil

HEADER = (
    "| workers | clients | seconds | requests | failed | requests a second | p50, ms | p95, ms | p99, ms | "
    "checkpoints taken | memory after a tenth, MB | memory at the end, MB |\n|" + "---:|" * 12
)


def main(given: Sequence[str] | None = None) -> int:
    """Start the service, ask it, and print what was measured; the status is 1 if a request failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--requests", type=int, help="end after so many, instead")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--swap", type=float, metavar="SECONDS", help="write the checkpoint again every so often")
    arguments, settings = parser.parse_known_args(given)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / arguments.checkpoint.name
        shutil.copy2(arguments.checkpoint, checkpoint)
        code = (
            "import sys; from recbole_rlmrec.cli import main\nif __name__ == '__main__': sys.exit(main(sys.argv[1:]))"
        )
        script = Path(folder) / "serve.py"
        script.write_text(code)
        command = [sys.executable, str(script), "serve", f"--checkpoint={checkpoint}", "--port=0"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [os.getcwd(), *sys.path]))}
        service = subprocess.Popen(
            [*command, f"--workers={arguments.workers}", *settings], stdout=subprocess.PIPE, env=environment, text=True
        )
        try:
            found = re.search(r"http://127\.0\.0\.1:(\d+)", service.stdout.readline())  # type: ignore[union-attr]
            if found is None:
                raise SystemExit("The service did not start.")
            load = Load(int(found[1]), arguments, psutil.Process(service.pid), checkpoint)
            asyncio.run(load.run())
        finally:
            service.terminate()
            service.wait(30)
    print(HEADER)
    print(load.row())
    return 1 if load.failures else 0


class Load:
    """Clients of a service, and what they measure.

    Args:
        port: of the service.
        arguments: how many clients, and how long.
        process: of the service.
        checkpoint: its file.
    """

    def __init__(self, port: int, arguments: argparse.Namespace, process: psutil.Process, checkpoint: Path) -> None:
        self.port, self.arguments, self.process, self.checkpoint = port, arguments, process, checkpoint
        self.times: list[float] = []
        self.failures: list[str] = []
        self.memory: list[float] = []
        self.taken = 0.0

    async def run(self) -> None:
        """Ask until it is enough."""
        reader, writer = await self.connected()
        users = (await self.ask(reader, writer, "/users?search=&k=1000"))["users"]
        items = [row["item"] for row in (await self.ask(reader, writer, "/items?search=&k=1000"))["items"]]
        self.start = time.perf_counter()
        self.end = self.start + self.arguments.seconds if self.arguments.requests is None else float("inf")
        beside = [asyncio.create_task(each) for each in (self.watch(), self.swap())]
        await asyncio.gather(*(self.client(users, items, number) for number in range(self.arguments.clients)))
        self.seconds = time.perf_counter() - self.start
        for each in beside:
            each.cancel()
        await asyncio.sleep(0)
        self.memory.append(self.resident())
        writer.close()

    def is_over(self) -> bool:
        """Return whether no further request is sent."""
        wanted = self.arguments.requests
        return time.perf_counter() >= self.end or (wanted is not None and len(self.times) >= wanted)

    async def connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return a connection, once the service takes one."""
        for _ in range(600):
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                await self.ask(reader, writer, "/health")
                return reader, writer
            except (OSError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.1)
        raise SystemExit("The service does not answer.")

    async def ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> Any:
        """Return what the service answers.

        Raises:
            ValueError: the status is not 200.
        """
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = re.search(r"content-length: (\d+)", head)
        body = await reader.readexactly(int(length[1]) if length else 0)
        if not head.startswith("http/1.1 200"):
            raise ValueError(f"{path}: {head.splitlines()[0]} {body[:200]!r}")
        return json.loads(body)

    async def client(self, users: list[str], items: list[str], number: int) -> None:
        """Ask one thing after another."""
        draw = random.Random(number)
        reader, writer = await self.connected()
        while not self.is_over():
            is_list = draw.random() < 0.95
            user, item = draw.choice(users), draw.choice(items)
            path = f"/recommend?user={quote(user)}&k=10" if is_list else f"/similar?item={quote(item)}&k=10"
            start = time.perf_counter()
            try:
                found = await self.ask(reader, writer, path)
                if not (found["items"] if is_list else found["in_model"]):
                    raise ValueError(f"{path}: an empty list")
            except (OSError, ValueError, KeyError, asyncio.IncompleteReadError) as error:
                self.failures.append(repr(error))
                print(repr(error), file=sys.stderr)
                reader, writer = await self.connected()
            self.times.append(time.perf_counter() - start)
        writer.close()

    async def swap(self) -> None:
        """Replace the checkpoint now and then."""
        while self.arguments.swap is not None:
            await asyncio.sleep(self.arguments.swap)
            beside = self.checkpoint.with_suffix(".new")
            shutil.copyfile(self.checkpoint, beside)
            os.replace(beside, self.checkpoint)

    async def watch(self) -> None:
        """Look at memory, and at how many checkpoints were taken."""
        reader, writer = await self.connected()
        while True:
            self.memory.append(self.resident())
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            body = await reader.readexactly(int(re.findall(r"content-length: (\d+)", head)[0]))
            taken = re.findall(r'outcome="loaded"} (\d+)', body.decode())
            self.taken = max(self.taken, sum(map(int, taken)))
            await asyncio.sleep(0.5)

    def resident(self) -> float:
        """Return the memory of the service's processes, MB."""
        every = [self.process, *self.process.children(recursive=True)]
        return sum(each.memory_info().rss for each in every) / 10**6

    def row(self) -> str:
        """Return what was measured."""
        p50, p95, p99 = np.percentile(self.times, [50, 95, 99]) * 1000
        cells = [
            self.arguments.workers,
            self.arguments.clients,
            f"{self.seconds:.0f}",
            f"{len(self.times):,}",
            len(self.failures),
            f"{len(self.times) / self.seconds:,.0f}",
            *(f"{each:.0f}" for each in (p50, p95, p99)),
            f"{self.taken:.0f}",
            f"{self.memory[len(self.memory) // 10]:.0f}",
            f"{self.memory[-1]:.0f}",
        ]
        return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    sys.exit(main())
