"""Flags that mean the same everywhere, and flags generated from the fields of a config."""

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any

import typer

from epigraph.errors import InputError

LibraryFlag = Annotated[
    Path, typer.Option("--library", envvar="EPIGRAPH_LIBRARY", help="folder of the named prompts", show_default=True)
]
TaskKindFlag = Annotated[
    str, typer.Option("--task-kind", help="classification, generation, choice, multilabel or ordinal; else as found")
]
JsonFlag = Annotated[bool, typer.Option("--json", help="one machine-readable object on standard output")]
BaseFlag = Annotated[str, typer.Option("--base", help="base: default, a folder, or a hub name")]
DeviceFlag = Annotated[str, typer.Option("--device", help="cuda, mps, cpu or auto")]
DtypeFlag = Annotated[str, typer.Option("--dtype", help="float32, bfloat16, float16, or auto: what this machine does fast")]
CalibrateFlag = Annotated[
    str, typer.Option("--calibrate", help="shift the probabilities: contextual (by empty inputs) or prior (by these texts)")
]
LIBRARY = Path("library")
CONTEXT = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)


def examples(*lines: str) -> str:
    """The end of a command's help: lines to copy, kept as they are."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def check_alone(given: Collection[str], flag: str, *, besides: Collection[str]) -> None:
    """InputError where anything was ``given`` with ``flag`` that it would pass over in silence."""
    passed = sorted(set(given) - {flag, *besides})
    if passed:
        names = ", ".join(name.upper() if name.startswith("task") else f"--{name.replace('_', '-')}" for name in passed)
        raise InputError(f"--{flag} was given with {names}; what is gone on with knows its own.", f"Give --{flag} alone.")


def with_settings(config: type[Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command one flag for each field of ``config``; it receives the finished config as ``config``, and as ``given``,
    if it asks for that, the names of what the command line says."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        asked = inspect.signature(command, eval_str=True).parameters
        own = [p for p in asked.values() if p.name not in ("config", "given")]
        own = [CONTEXT, *own] if "given" in asked else own
        flags = [_flag(field, typing.get_type_hints(config)[field.name]) for field in dataclasses.fields(config)]

        @functools.wraps(command)
        def run(**values: Any) -> Any:
            if (context := values.pop(CONTEXT.name, None)) is not None:
                values["given"] = frozenset(name for name in context.params if _is_given(context, name))
            settings = {flag.name: values.pop(flag.name) for flag in flags}
            return command(**values, config=config(**settings))

        run.__signature__ = inspect.Signature([*own, *flags])  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in [*own, *flags]}
        return run

    return decorate


def _is_given(context: Any, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _flag(field: "dataclasses.Field[Any]", kind: Any) -> inspect.Parameter:
    names = [f"--{field.name.replace('_', '-')}"]
    help_text = field.metadata["doc"]
    if isinstance(kind, types.UnionType):
        option = typer.Option(*names, help=help_text, show_default=False)
    else:
        option = typer.Option(*names, help=help_text, show_default=field.default not in ("", False))
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=Annotated[kind, option]
    )
