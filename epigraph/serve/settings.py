"""How a server runs: where it listens, whom it lets in, how much it takes on. Imports no torch.

Bounds are answered with 413 (a request too large) or 429 (too many requests), never with a process that runs out of memory.
"""

import ipaddress
from dataclasses import dataclass
from functools import cached_property

from epigraph.config import setting
from epigraph.errors import ConfigError

GIGABYTE = 10**9
MOST_BATCH = 128
ENGINES = ("local", "vllm")
OTHERWISE = ("refuse", "base")


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """What ``epigraph serve`` was asked for."""

    host: str = setting("127.0.0.1", "address to listen on; any but a loopback address needs --keys")
    port: int = setting(8000, "port to listen on; 0: a free one")
    keys: str = setting("", "file of API keys; --new-key writes one into it")
    uploads: bool = setting(False, "take prompts by POST /v1/prompts")
    engine: str = setting("local", "local, or vllm: this server embeds, the vLLM servers of --at compute")
    at: str = setting("", "URLs of vLLM servers started with --enable-prompt-embeds, with commas")
    queue: int = setting(256, "requests that may wait; more are answered 429")
    rows: int = setting(32, "answers that are written at once; others wait")
    batch: int = setting(0, "most answers in one request: prompts × n; 0: 128, or the queue where that is less")
    tokens: int = setting(4096, "most tokens of one answer")
    body: float = setting(8.0, "most megabytes of a request")
    held: float = setting(
        0.0,
        "most megabytes that all requests hold until they are answered: their bodies; as many again their tokens, answers and what "
        "goes to vLLM servers; 0: a tenth of the free memory, at most 1000",
    )
    timeout: float = setting(300.0, "seconds that a request may take")
    grace: float = setting(30.0, "seconds in which a shutdown finishes what runs")
    memory: float = setting(
        0.0,
        "gigabytes for prompts; as many each for what is computed of prompts and of texts; 0: a tenth of the free, at most 1",
    )
    forget: bool = setting(False, "keep no states of texts for later requests")
    origins: str = setting("", "browser origins that may call (CORS), with commas; by default none")
    min_route: float = setting(0.5, "model auto: the router's confidence below which a text goes to no prompt")
    otherwise: str = setting("refuse", "model auto: what then: refuse (404), or base, the bare base answers")
    texts: bool = setting(False, "write users' texts into the log; by default they are left out")

    def __post_init__(self) -> None:
        object.__setattr__(self, "batch", self.batch or min(MOST_BATCH, self.queue))
        if self.engine not in ENGINES:
            raise ConfigError(f"engine {self.engine!r} is not known.", f"Choose one of: {', '.join(ENGINES)}.")
        if (self.engine == "vllm") != bool(self.at):
            raise ConfigError(
                f"--engine {self.engine} was asked {'without' if not self.at else 'with'} --at.",
                "Give --engine vllm and --at URL together.",
            )
        if self.otherwise not in OTHERWISE:
            raise ConfigError(f"otherwise {self.otherwise!r} is not known.", f"Choose one of: {', '.join(OTHERWISE)}.")
        for url in self.urls:
            if not url.startswith(("http://", "https://")):
                raise ConfigError(f"--at has {url!r}, which is no URL.", "It looks like http://127.0.0.1:8100.")
        self._check_numbers()
        if not self.keys and not is_loopback(self.host):
            raise ConfigError(
                f"host {self.host} was asked without API keys: anybody who reaches it could use it.",
                "Make a key first: epigraph serve --keys keys.toml --new-key NAME; then pass --keys keys.toml.",
            )

    def _check_numbers(self) -> None:
        at_least = {"port": 0, "queue": 1, "rows": 1, "batch": 1, "tokens": 1, "grace": 0, "memory": 0, "held": 0}
        for name, least in at_least.items():
            if not least <= getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} {getattr(self, name)} was asked; it must be at least {least}.")
        for name in ("body", "timeout"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} {getattr(self, name)} was asked; it must be a positive number.")
        if 0 < self.held < self.body:
            raise ConfigError(
                f"held {self.held:g} was asked with body {self.body:g}: a request of {self.body:g} MB could never be taken.",
                "Lower --body, or raise --held.",
            )
        if self.batch > self.queue:
            raise ConfigError(
                f"batch {self.batch} was asked with queue {self.queue}: a request of {self.batch} answers could never be taken.",
                "Lower --batch, or raise --queue.",
            )
        if not 0 <= self.min_route <= 1:
            raise ConfigError(f"min-route {self.min_route} was asked; it must lie between 0 and 1.")
        if self.port > 65535:
            raise ConfigError(f"port {self.port} was asked; ports end at 65535.")

    @cached_property
    def kept_bytes(self) -> int:
        """How much a cache in the machine's memory may hold."""
        import psutil

        return self.kept_of(int(psutil.virtual_memory().available))

    def kept_of(self, free: int) -> int:
        """How much a cache may hold where ``free`` bytes are free: as asked, else what leaves most of it."""
        return int(GIGABYTE * self.memory) if self.memory else min(GIGABYTE, free // 10)

    @cached_property
    def held_bytes(self) -> int:
        """How much all requests may hold until they are answered."""
        import psutil

        return int(1e6 * self.held) if self.held else min(GIGABYTE, int(psutil.virtual_memory().available) // 10)

    @property
    def urls(self) -> tuple[str, ...]:
        """The vLLM servers."""
        return tuple(url.strip().rstrip("/").removesuffix("/v1") for url in self.at.split(",") if url.strip())

    @property
    def allowed_origins(self) -> tuple[str, ...]:
        """The browser origins of CORS."""
        return tuple(origin.strip() for origin in self.origins.split(",") if origin.strip())


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
