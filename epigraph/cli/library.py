"""``epigraph library``: the folder of named, versioned, finished prompts."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from epigraph.cli.options import LIBRARY, BaseFlag, DeviceFlag, DtypeFlag, JsonFlag, LibraryFlag, examples
from epigraph.cli.output import METRIC_NAMES, metrics_in, print_error, print_json, print_table, say, score_text
from epigraph.errors import InputError

app = typer.Typer(
    help="The named, versioned, finished prompts in library/ (or --library, or $EPIGRAPH_LIBRARY).",
    no_args_is_help=True,
    epilog=examples("epigraph library list", "epigraph library promote routing@3 prod"),
)
Prompt = Annotated[str, typer.Argument(help="a stored prompt: routing, routing@3 or routing@prod")]


def _library(folder: Path) -> Any:
    from epigraph.library import Library

    return Library(folder)


@app.command("list", epilog=examples("epigraph library list", "epigraph library list --library shared/prompts --json"))
def list_prompts(*, library: LibraryFlag = LIBRARY, json: JsonFlag = False) -> None:
    """All prompts with their scores."""
    entries = list(_library(library).list())
    if json:
        print_json({"prompts": [_entry(e) for e in entries]})
        return
    if not entries:
        print(f"no prompts in {library}")
        return
    rows = []
    for e in entries:
        metric = next(iter(metrics_in(e.card.scores)), "") if e.card else ""
        score = f"{METRIC_NAMES[metric]} {score_text(e.card.scores, metric)}" if metric else "-"
        base = Path(e.card.base.name).name if e.card else ""
        rows.append([f"{e.name}@{e.version}", ", ".join(e.aliases), e.card.kind if e.card else "", base, e.problem or score])
    print_table("", ["prompt", "aliases", "kind", "base", "score"], rows)


def _entry(entry: Any) -> dict[str, Any]:
    found = {"prompt": f"{entry.name}@{entry.version}", "aliases": list(entry.aliases), "problem": entry.problem}
    if entry.card is not None:
        found |= {"kind": entry.card.kind, "base": entry.card.base.name, "scores": dict(entry.card.scores)}
    return found


@app.command(epilog=examples("epigraph library show routing", "epigraph library show routing@prod --json"))
def show(prompt: Prompt, *, library: LibraryFlag = LIBRARY, json: JsonFlag = False) -> None:
    """The card of a prompt: base, task, scores, cost, lineage."""
    store = _library(library)
    card = store.card(prompt)
    if json:
        print_json(dataclasses.asdict(card))
        return
    print((store.folder(prompt) / "card.toml").read_text(encoding="utf-8").rstrip())


@app.command(epilog=examples("epigraph library remove routing@2", "epigraph library remove routing --force"))
def remove(
    prompt: Prompt,
    *,
    force: Annotated[bool, typer.Option("--force", help="even if an alias points to it")] = False,
    library: LibraryFlag = LIBRARY,
    json: JsonFlag = False,
) -> None:
    """Remove one version (NAME@VERSION) or a whole name (NAME)."""
    _library(library).remove(prompt, force=force)
    print_json({"removed": prompt}) if json else say(f"removed {prompt}")


@app.command(epilog=examples("epigraph library promote routing@3 prod", "epigraph predict routing@prod 'a new text'"))
def promote(
    prompt: Prompt,
    alias: Annotated[str, typer.Argument(help="alias such as prod")],
    *,
    library: LibraryFlag = LIBRARY,
    json: JsonFlag = False,
) -> None:
    """Let an alias point to a version: promote routing@3 prod."""
    store = _library(library)
    name, version = store.resolve(prompt)
    store.promote(name, version, alias)
    print_json({"prompt": f"{name}@{version}", "alias": f"{name}@{alias}"}) if json else say(
        f"{name}@{alias} is {name}@{version}"
    )


@app.command(
    short_help="Back to the version before.",
    epilog=examples("epigraph library rollback routing", "epigraph library rollback routing@prod --to 1"),
)
def rollback(
    prompt: Annotated[str, typer.Argument(help="a name (routing), or an alias (routing@prod)")],
    *,
    to: Annotated[
        int | None, typer.Option("--to", help="version to go back to; by default where it came from", show_default=False)
    ] = None,
    library: LibraryFlag = LIBRARY,
    json: JsonFlag = False,
) -> None:
    """Let a name mean what an earlier version is (by a new version equal to it), or an alias mean that version. Nothing is lost."""
    from epigraph.library.history import roll_back

    done = roll_back(_library(library), prompt, to)
    if json:
        print_json(done.json)
        return
    say(
        f"{done.alias} is {done.to}, no longer {done.before}"
        if done.alias
        else f"{done.prompt} equals {done.to}: {prompt} is that now"
    )
    for alias in done.aliases:
        say(f"note: {alias} still means {done.before}; epigraph library rollback {alias} moves it")


@app.command(
    short_help="What two versions say and answer differently.",
    epilog=examples(
        "epigraph library diff routing@1 routing@2", "epigraph library diff routing@1 routing@2 --data test.csv --json"
    ),
)
def diff(
    first: Annotated[str, typer.Argument(help="a stored prompt: routing@1")],
    second: Annotated[str, typer.Argument(help="another one: routing@2")],
    *,
    data: Annotated[str, typer.Option("--data", help="file of texts, with or without labels, that both answer")] = "",
    strict: Annotated[bool, typer.Option("--strict", help="any faulty row ends the command")] = False,
    base: BaseFlag = "",
    device: DeviceFlag = "auto",
    dtype: DtypeFlag = "auto",
    library: LibraryFlag = LIBRARY,
    json: JsonFlag = False,
) -> None:
    """What the cards of two prompts say differently, how alike their vectors are, and with --data which answers differ."""
    from epigraph.cli.difference import find_differences, show_differences

    found = find_differences(_library(library), first, second, data, strict=strict, base=base, device=device, dtype=dtype)
    print_json(found) if json else show_differences(found)


@app.command(
    short_help="Let auto send texts like these to a prompt.",
    epilog=examples("epigraph library route routing --data train.csv", "epigraph predict auto 'a new text' --json"),
)
def route(
    prompt: Prompt,
    *,
    data: Annotated[str, typer.Option("--data", help="texts like those it shall answer; only statistics of them are kept")],
    strict: Annotated[bool, typer.Option("--strict", help="any faulty row ends the command")] = False,
    base: BaseFlag = "",
    device: DeviceFlag = "auto",
    dtype: DtypeFlag = "auto",
    library: LibraryFlag = LIBRARY,
    json: JsonFlag = False,
) -> None:
    """Add a prompt to the router, by which `epigraph predict auto` and a server choose where nobody names one."""
    from epigraph.jobs import route_prompt

    router = route_prompt(prompt, data, library=library, strict=strict, base=base, device=device, dtype=dtype, note=say)
    tasks = {name: said.prompt for name, said in router.tasks.items()}
    if json:
        print_json({"prompt": prompt, "tasks": tasks})
        return
    print(f"auto chooses among {', '.join(tasks.values())}")


@app.command(
    short_help="Check every file against its hash.",
    epilog=examples(
        "epigraph library verify", "epigraph library verify routing@3 --json", "epigraph library verify --privacy"
    ),
)
def verify(
    prompt: Annotated[str, typer.Argument(help="a stored prompt; none: all")] = "",
    *,
    privacy: Annotated[
        bool, typer.Option("--privacy", help="list instead every file and field that holds texts or personal data, or could")
    ] = False,
    library: LibraryFlag = LIBRARY,
    json: JsonFlag = False,
) -> None:
    """Check every file against its hash, shapes, finite values, leftovers; exit code 2 if something is wrong."""
    if privacy:
        _privacy(library, prompt, json=json)
        return
    problems = list(_library(library).verify(prompt or None))
    for problem in problems:
        say(": ".join(part for part in (problem.reference, problem.file, problem.message) if part))
    found: dict[str, Any] = {"problems": [dataclasses.asdict(p) for p in problems]}
    if problems:
        message, hint = f"{len(problems)} problems were found in {library}.", "Remove or import these prompts again."
        found |= {"error": {"type": "Corrupt", "message": message, "hint": hint}}
        print_error("Corrupt", message, hint, as_json=False)
    if json:
        print_json(found)
    elif not problems:
        print("everything is as it was written")
    raise typer.Exit(2 if problems else 0)


def _privacy(library: Path, prompt: str, *, json: bool) -> None:
    from epigraph.correct.privacy import EMBEDS, check_privacy

    found = check_privacy(library, prompt)
    if json:
        print_json(found.json)
        return
    rows = [
        [one.prompt or "-", one.holds, f"{one.field}: {one.found}" if one.field else one.where, one.what]
        for one in found.holdings
    ]
    print_table("what holds texts or personal data, or could", ["prompt", "holds", "where", "what it is"], rows)
    for reference, why in found.embeds.items():
        print(f"{reference} embeds texts: {why}")
    for reference, why in found.words.items():
        print(f"{reference} began as words of its task: {why}")
    if not found.embeds:
        print(f"no prompt here embeds texts of its data; kinds and starts that would: {', '.join(EMBEDS)}")


@app.command(
    "export",
    short_help="Copy a prompt out, or write it as a PEFT adapter.",
    epilog=examples("epigraph library export routing shared/routing", "epigraph library export routing ada --format peft"),
)
def export_prompt(
    prompt: Prompt,
    destination: Annotated[Path, typer.Argument(help="folder to write; only a prompt's folder is replaced")],
    *,
    format: Annotated[str, typer.Option("--format", help="epigraph (the whole folder) or peft")] = "epigraph",
    library: LibraryFlag = LIBRARY,
    json: JsonFlag = False,
) -> None:
    """Copy a prompt out of the library, or write it as a PEFT adapter."""
    if format not in ("epigraph", "peft"):
        raise InputError(f"format {format!r} was asked, which is not known.", "Choose epigraph or peft.")
    store = _library(library)
    if format == "peft":
        from epigraph.library import export_peft

        written = export_peft(store.get(prompt), destination)
    else:
        written = store.export(prompt, destination)
    print_json({"prompt": prompt, "folder": str(written)}) if json else say(f"wrote {written}")


@app.command(
    "import",
    short_help="Take in a prompt's folder, a PEFT adapter, an array (.npy), or a caikit folder.",
    epilog=examples(
        "epigraph library import shared/routing --name routing",
        "epigraph library import peft-adapter --name routing --task train.csv --base my-model",
        "epigraph library import prompt.npy --name routing --task train.csv --base my-model",
    ),
)
def import_prompt(
    folder: Annotated[Path, typer.Argument(help="a prompt folder, a folder that PEFT or caikit saved, or a .npy file")],
    *,
    name: Annotated[str | None, typer.Option("--name", help="name in this library; by default its own")] = None,
    task: Annotated[
        str, typer.Option("--task", help="data file or task TOML that says what an adapter or an array was tuned for")
    ] = "",
    base: BaseFlag = "default",
    library: LibraryFlag = LIBRARY,
    json: JsonFlag = False,
) -> None:
    """Take a prompt into the library; one that another library saved takes the fingerprint of --base, marked unverified."""
    from epigraph.jobs import import_foreign
    from epigraph.library import check_name
    from epigraph.library.array import is_array

    ours = (folder / "card.toml").is_file()
    if not ours and ((folder / "adapter_config.json").is_file() or is_array(folder)):
        card = import_foreign(folder, name=name, task=task, base=base, library=library, note=say)
    else:
        card = _library(library).import_folder(folder, "" if name is None else check_name(name))
    print_json({"prompt": card.reference}) if json else say(f"imported {card.reference}")
