"""From settings to a server that runs: what computes is opened, the application bound to it, the port listened on.

Ctrl-C or SIGTERM: /ready says that it is closing, no new request is taken, what runs is finished within the grace; what is not
by then hears that the server is shutting down, and the process ends.
"""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import uvicorn

from epigraph.base import load_base
from epigraph.base.load import load_embedding
from epigraph.engine import Engine
from epigraph.engine.frozen import free_bytes
from epigraph.errors import ConfigError
from epigraph.serve.app import create_app
from epigraph.serve.batcher import Batcher
from epigraph.serve.keys import read_keys
from epigraph.serve.log import textless
from epigraph.serve.service import Service
from epigraph.serve.settings import ServeConfig
from epigraph.serve.vllm import Upstream
from epigraph.serve.work import BatcherSettings

LAST_SECONDS = 5
"""For answers that are made already to reach their clients."""
STEP = 0.05  # seconds
Note = Callable[[str], None]
Announce = Callable[[dict[str, Any]], None]


def open_service(config: ServeConfig, library: Path, *, base: str, device: str, dtype: str, note: Note) -> Service:
    """The base loaded, and what computes beside it started. A faulty key file is found before."""
    if config.keys:
        read_keys(Path(config.keys))
    service = _open(config, library, base=base, device=device, dtype=dtype, note=note)
    service.open()
    return service


def _open(config: ServeConfig, library: Path, *, base: str, device: str, dtype: str, note: Note) -> Service:
    if config.engine == "vllm":
        return _open_upstream(config, library, base=base, note=note)
    loaded = load_base(base, dtype=dtype, device=device, note=note)
    note(f"{loaded.name} in {loaded.precision.name}: {loaded.precision.reason}")
    engine = Engine(loaded, keep=False)
    if engine.warning:
        note(engine.warning)
    kept = config.kept_of(free_bytes(loaded.device))
    note(f"{kept / 1e9:.2g} GB each for prompts, their states and those of texts" + ("" if config.memory else " (--memory)"))
    settings = BatcherSettings(
        queue_length=config.queue,
        max_rows=config.rows,
        prompt_bytes=kept,
        text_bytes=0 if config.forget else kept,
        held_bytes=config.held_bytes,
    )
    return Service(loaded, library, Batcher(engine, settings), config)


def _open_upstream(config: ServeConfig, library: Path, *, base: str, note: Note) -> Service:
    loaded = load_embedding(base, note=note)
    note(f"{loaded.name}: its embedding and tokenizer here, the rest at {', '.join(config.urls)}")
    backend = Upstream(loaded, config.urls, queue=config.queue, seconds=config.timeout, most_held=config.held_bytes)
    return Service(loaded, library, backend, config, computes_here=False)


def serve(service: Service, listening: socket.socket, note: Note, announce: Announce | None = None) -> None:
    """Serve until a signal ends it. ``announce`` gets where, once connections are taken."""
    host, port = listening.getsockname()[:2]
    url, prompts = f"http://{_shown(host)}:{port}/v1", list(service.library.names())
    note(f"serving {service.base.name} and {len(prompts)} prompts on {url}")
    if announce:
        announce({"url": url, "base": service.base.name, "prompts": prompts})
    with textless(), _signals_end_it():
        Draining(service).run(sockets=[listening])


class Draining(uvicorn.Server):
    """Ends in three steps: no new requests while what runs is finished, then what runs is ended, then the connections."""

    def __init__(self, service: Service) -> None:
        self.service = service
        super().__init__(
            uvicorn.Config(
                create_app(service),
                log_config=None,
                access_log=False,
                server_header=False,
                ws="none",
                timeout_graceful_shutdown=LAST_SECONDS,
                h11_max_incomplete_event_size=64 * 1024,
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Connections are still taken in the first step: whoever asks /ready must be told."""
        self.service.closing = True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.service.config.grace
        while self.service.inside and loop.time() < deadline and not self.force_exit:
            await asyncio.sleep(STEP)
        await asyncio.to_thread(self.service.close, grace=0.0)
        await super().shutdown(sockets)


@contextmanager
def _signals_end_it() -> Iterator[None]:
    """Ctrl-C and SIGTERM are how a server ends, so they are no fault: uvicorn finishes, and repeats them to us."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with suppress(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


def listen(config: ServeConfig) -> socket.socket:
    """A socket bound to the address. ConfigError where it is taken or not ours."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # said, so that asyncio sends small writes at once
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((config.host.strip("[]"), config.port))
        found.listen(128)
    except OSError as error:
        found.close()
        raise ConfigError(
            f"{config.host}:{config.port} cannot be listened on: {error.strerror or error}.", "Choose another --port."
        ) from error
    return found


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
