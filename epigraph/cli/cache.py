"""``epigraph cache``: what Epigraph keeps in $EPIGRAPH_HOME."""

import shutil
from typing import Annotated

import typer

from epigraph.cli.options import JsonFlag, examples
from epigraph.cli.output import print_json, print_table, say, size_text
from epigraph.errors import InputError

app = typer.Typer(
    help="What is kept in $EPIGRAPH_HOME (by default ~/.cache/epigraph) so that it is computed or fetched once.",
    no_args_is_help=True,
    epilog=examples("epigraph cache list", "epigraph cache clear frozen"),
)

PARTS = {
    "frozen": "frozen states of texts (private user data)",
    "answers": "what teachers answered while distilling (private user data)",
    "fingerprints": "remembered fingerprints of bases",
    "selftests": "bases that passed the self-test",
    "assets": "fetched files of published wheels",
    "bases": "the embedded base as safetensors",
}


@app.command("list", epilog=examples("epigraph cache list", "epigraph cache list --json"))
def list_cache(*, json: JsonFlag = False) -> None:
    """Every part with its files and bytes."""
    found = {part: _size(part) for part in PARTS}
    if json:
        from epigraph.assets import home

        parts = [{"part": part, "files": files, "bytes": size} for part, (files, size) in found.items()]
        print_json({"home": str(home()), "parts": parts})
        return
    rows = [[part, meaning, str(found[part][0]), size_text(found[part][1])] for part, meaning in PARTS.items()]
    print_table("", ["part", "what", "files", "size"], rows)


@app.command("clear", epilog=examples("epigraph cache clear", "epigraph cache clear all"))
def clear_cache(
    part: Annotated[str, typer.Argument(help="frozen, answers, fingerprints, selftests, assets, bases or all")] = "frozen",
    *,
    json: JsonFlag = False,
) -> None:
    """Remove a part; by default the frozen states. Everything is made again when it is needed."""
    from epigraph.assets import home

    if part not in (*PARTS, "all"):
        raise InputError(f"part {part!r} is not known.", f"Choose one of: {', '.join(PARTS)}, all.")
    parts = list(PARTS) if part == "all" else [part]
    before = sum(_size(p)[1] for p in parts)
    for p in parts:
        shutil.rmtree(home() / p, ignore_errors=True)
    freed = before - sum(_size(p)[1] for p in parts)
    print_json({"cleared": parts, "bytes": freed}) if json else say(f"cleared {', '.join(parts)}: {size_text(freed)}")


def _size(part: str) -> tuple[int, int]:
    from epigraph.assets import home

    folder = home() / part
    files = [f for f in folder.rglob("*") if f.is_file()] if folder.is_dir() else []
    return len(files), sum(f.stat().st_size for f in files)
