"""Starts the service: its socket, its processes, and how long it waits for a client."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import tempfile
from asyncio import BaseTransport
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.supervisors import Multiprocess

from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.recommend.service.app import AppSettings, loaded_app
from recbole_rlmrec.recommend.service.guard import PATIENCE, App, is_loopback
from recbole_rlmrec.recommend.service.served import Served, Sources

#: Environment variable of the token.
TOKEN = "RECBOLE_RLMREC_TOKEN"
#: Characters that a token has at least.
_SHORTEST_TOKEN = 16
_ROOM = __name__.rpartition(".")[0]


@dataclass(frozen=True)
class Address:
    """Where a service listens.

    Attributes:
        host: name or address.
        port: 0 for any free one.
        workers: processes.
    """

    host: str
    port: int
    workers: int


class PatientProtocol(H11Protocol):
    """HTTP whose connections end if no whole head of a request comes within ``PATIENCE`` to twice as many seconds."""

    def connection_made(self, transport: BaseTransport) -> None:
        """Start to look at the connection."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self.loop.call_later(PATIENCE, self._look, None)

    def _look(self, before: Any) -> None:
        if self.transport.is_closing():
            return
        is_idle = self.cycle is None or self.cycle.response_complete
        if is_idle and self.cycle is before:
            self.transport.abort()
        else:
            self.loop.call_later(PATIENCE, self._look, self.cycle)


def token() -> str:
    """Return the token that requests have to name, from the environment; empty for none.

    Raises:
        SettingError: it is too short to keep anybody out.
    """
    found = os.environ.get(TOKEN, "")
    if found and (len(found) < _SHORTEST_TOKEN or not found.isascii() or not found.isprintable()):
        raise SettingError(
            f"{TOKEN} has {len(found)} characters: expected at least {_SHORTEST_TOKEN}, all of ASCII, such as those of "
            "'openssl rand -hex 16'."
        )
    return found


def bound(address: Address) -> socket.socket:
    """Return a socket that listens.

    Raises:
        SettingError: the port is taken, or the address is none of this machine.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        listening = socket.create_server((address.host, address.port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SettingError(
            f"--host={address.host} --port={address.port}: {reason}. Give an address of this machine and a free port; "
            "--port=0 takes any."
        ) from error
    listening.set_inheritable(True)
    return listening


def configured(app: Callable[[], App], workers: int) -> uvicorn.Config:
    """Return how the service runs.

    Args:
        app: makes the service, in each process.
        workers: processes.
    """
    return uvicorn.Config(
        app,
        factory=True,
        workers=workers,
        http=PatientProtocol,
        ws="none",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=int(PATIENCE),
        # While a process loads its model it may not answer others for a while.
        timeout_worker_healthcheck=60,
    )


def serve(
    checkpoint: Path,
    address: Address,
    *,
    compare_with: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    report: Callable[[str], None],
) -> None:
    """Serve a model until the process is ended.

    Args:
        checkpoint: of the model; once its file is another, that one is served.
        address: where.
        compare_with: checkpoint of the model to compare with; None for the base that the training left.
        settings: over those of the training.
        report: is called with what there is to know.

    Raises:
        RLMRecError: the model cannot be loaded, or nothing can listen there.
    """
    app_settings = AppSettings(token(), only_loopback=is_loopback(address.host))
    if not app_settings.only_loopback and not app_settings.token:
        report(f"Warning: everybody who reaches {address.host} may use this service; set {TOKEN} to ask for a token.")
    # SIGTERM as Ctrl+C: what is temporary is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(prefix="recbole-rlmrec-") as folder, bound(address) as listening:
        sources = Sources(checkpoint, compare_with, dict(settings or {}), Path(folder) / "added.jsonl")
        make = partial(_worker, sources, app_settings)
        host, port = listening.getsockname()[:2]
        where = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        config = configured(make, address.workers)
        if address.workers == 1:
            app = make()  # here, where an error is one sentence
            config = configured(lambda: app, 1)
            report(f"{where} (end with Ctrl+C)")
            uvicorn.Server(config).run(sockets=[listening])
        else:
            # Once, where an error is one sentence; in a process of its own, whose memory is given back.
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                pool.submit(_check, sources).result()
            report(f"{where}, {address.workers} processes (end with Ctrl+C)")
            Multiprocess(config, sockets=[listening]).run()


def _check(sources: Sources) -> None:
    """Check that a model can be loaded.

    Raises:
        RLMRecError: it cannot.
    """
    Served.load(sources)


def _worker(sources: Sources, settings: AppSettings) -> App:
    """Return the service of a process, whose log goes to its standard error."""
    logger = logging.getLogger(_ROOM)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return loaded_app(sources, settings)
