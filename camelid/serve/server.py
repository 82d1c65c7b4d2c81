"""Running the application: uvicorn, steered so that running requests finish and idle connections do not stay."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import uvicorn
from fastapi import APIRouter, FastAPI
from threadpoolctl import threadpool_limits

from camelid.errors import OptionError, ResourceError
from camelid.serve.app import create_app
from camelid.serve.connection import HEADER_SECONDS, Connection
from camelid.serve.dependencies import part_of
from camelid.serve.models import Models
from camelid.serve.options import ServeOptions
from camelid.serve.storage.conversations import Store

SWITCH_SECONDS = 0.0005  # for which a thread keeps the interpreter while the engine's waits for it; Python's own: 0.005
LAST_WRITES_SECONDS = 5  # for slow readers to take what is finished, when the server ends


class Server(uvicorn.Server):
    """Ends in two steps: running requests finish while new ones are told 503, then connections are closed.

    Args:
        app: an application made by `create_app`.
        options: where and how long.
        ready: called once requests are served.
    """

    def __init__(self, app: FastAPI, options: ServeOptions, ready: Callable[[], None] | None = None) -> None:
        self._options, self._models, self._ready = options, part_of(app, Models), ready
        self._draining: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop
        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,
                ws="none",
                access_log=False,
                log_config=None,
                log_level="warning",
                server_header=False,
                timeout_keep_alive=HEADER_SECONDS,
                timeout_graceful_shutdown=LAST_WRITES_SECONDS,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the workers, then listen."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self._ready is not None:
            self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal lets running requests finish, the second one does not."""
        if self._draining is None:
            self._loop.call_soon_threadsafe(self.drain)
        else:
            self.should_exit = self.force_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGHUP, of a terminal that is closed, is as SIGTERM; where it is ignored (nohup) it stays so."""
        with super().capture_signals():
            before = signal.getsignal(signal.SIGHUP) if hasattr(signal, "SIGHUP") else signal.SIG_IGN
            if before == signal.SIG_IGN or threading.current_thread() is not threading.main_thread():
                yield
                return
            signal.signal(signal.SIGHUP, self.handle_exit)
            try:
                yield
            finally:
                signal.signal(signal.SIGHUP, before)

    def drain(self) -> None:
        """Take no new requests, let those that run finish, then end."""
        if self._draining is None:
            self._draining = self._loop.create_task(self._drain())

    async def _drain(self) -> None:
        await self._models.stop(self._options.shutdown_seconds)
        self.should_exit = True


def listen(options: ServeOptions) -> tuple[socket.socket, str]:
    """Take the address; returns it as a URL too.

    Raises:
        OptionError: the host is no address of this machine, or others could reach it and no key would be asked for.
        ResourceError: the port is in use, or not ours to take.
    """
    check_reach(options)
    host, port = options.host, options.port
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        # asyncio sends small packets at once (TCP_NODELAY) only where the protocol is named
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except OSError as error:
        raise OptionError(f"host: {host!r} cannot be used: {error.strerror}", param="host") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise ResourceError(f"port {port} of {host}: {error.strerror}; choose another one with --port") from None
    return listener, _url(host, listener.getsockname()[1])


def serve(
    models: Models,
    options: ServeOptions,
    listener: socket.socket | None = None,
    ready: Callable[[], None] | None = None,
    routers: Sequence[APIRouter] = (),
) -> None:
    """Serve until SIGINT or SIGTERM; running requests finish first.

    Args:
        models: what is served.
        options: where, for whom, and how long things may take.
        listener: from `listen`; else it is called.
        ready: called once requests are served.
        routers: of guests, as `create_app` takes them.

    Raises:
        OptionError, ResourceError: as `listen`, and if conversations cannot be kept where `options` say.
    """
    serve_app(create_app(models, options, routers), models, options, listener, ready)


def serve_app(
    app: FastAPI,
    models: Models,
    options: ServeOptions,
    listener: socket.socket | None = None,
    ready: Callable[[], None] | None = None,
) -> None:
    """Serve an application that `create_app` has made with these models and options, as `serve` does.

    Raises:
        OptionError, ResourceError: as `serve`.
    """
    listener = listener if listener is not None else listen(options)[0]
    _raise_file_limit()
    part_of(app, Store).open()  # what is wrong with its database is told at once
    # Beside the C++ engine BLAS computes for the Flow page only; its threads would fight the engine's for the cores.
    alone = all(worker.llama.engine.backend.name == "cpu" for worker in models)
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        with threadpool_limits(limits=1 if alone else None, user_api="blas"):
            Server(app, options, ready).run(sockets=[listener])
    finally:
        sys.setswitchinterval(before)


def check_reach(options: ServeOptions) -> None:
    """Refuse to be open to others by accident.

    Raises:
        OptionError: the host is not loopback, and there is no key.
    """
    if not (options.is_loopback or options.api_keys or options.open_to_all):
        raise OptionError(
            f"host: others can reach {options.host}; ask them for a key with --api-key, or, if everyone there may use "
            "it, say --open-to-all",
            param="host",
        )


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _raise_file_limit() -> None:
    """Each connection takes a file descriptor; the usual soft limit of 1,024 is soon reached."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted: Any = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
        if soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
