"""``epigraph serve``: the library's prompts on one base, behind OpenAI's HTTP interface."""

from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from epigraph.cli.options import LIBRARY, BaseFlag, DeviceFlag, DtypeFlag, JsonFlag, LibraryFlag, examples, with_settings
from epigraph.cli.output import print_json, say
from epigraph.errors import ConfigError
from epigraph.serve.settings import ServeConfig

EXAMPLES = examples("epigraph serve --port 8000", "epigraph serve --keys keys.toml --new-key alice --json")


@with_settings(ServeConfig)
def serve(
    *,
    config: ServeConfig,
    new_key: Annotated[str, typer.Option("--new-key", help="add a key of this name to --keys, print it and end")] = "",
    rate: Annotated[float, typer.Option("--rate", min=0.0, help="of the new key: requests a minute; 0: no bound")] = 0.0,
    prompts: Annotated[str, typer.Option("--prompts", help="of the new key: what it may use, with commas; empty: all")] = "",
    metrics: Annotated[bool, typer.Option("--metrics", help="of the new key: it may read /metrics")] = False,
    base: BaseFlag = "default",
    device: DeviceFlag = "auto",
    dtype: DtypeFlag = "auto",
    library: LibraryFlag = LIBRARY,
    json: JsonFlag = False,
) -> None:
    """Serve the base and every prompt of the library; a prompt's name is the model. Prompts come and go while it runs.

    With --new-key it makes an API key instead; --uploads then lets that key upload prompts. --json prints what is served.
    """
    if new_key:
        _make_key(config, new_key, rate=rate, prompts=prompts, metrics=metrics, json=json)
        return
    running = _running()
    listening = running.listen(config)  # a taken port is found before the base is loaded
    with listening:
        service = running.open_service(config, library, base=base, device=device, dtype=dtype, note=say)
        running.serve(service, listening, say, print_json if json else None)


def _running() -> Any:
    try:
        return import_module("epigraph.serve.running")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"serving needs {error.name}, which is not installed.", "Install the extra: pip install 'epigraph[serve]'."
        ) from error


def _make_key(config: ServeConfig, name: str, *, rate: float, prompts: str, metrics: bool, json: bool) -> None:
    from epigraph.serve.keys import new_key

    if not config.keys:
        raise ConfigError("--new-key was given without --keys.", "Name the file: --keys keys.toml.")
    allowed = tuple(one.strip() for one in prompts.split(",") if one.strip())
    may = {"uploads": config.uploads, "metrics": metrics}
    token = new_key(Path(config.keys), name, rate=rate or None, prompts=allowed, **may)
    if json:
        print_json({"name": name, "key": token, "file": config.keys})
        return
    say(f"key {name!r} is in {config.keys} as a hash; this is the only time it is shown:")
    print(token)
