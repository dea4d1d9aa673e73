"""``epigraph prompt``: write hard prompts, score each at once, keep every version."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from epigraph.cli.options import LIBRARY, BaseFlag, DeviceFlag, DtypeFlag, JsonFlag, LibraryFlag, TaskKindFlag, examples
from epigraph.cli.output import METRIC_NAMES, print_json, print_table, say, share_text
from epigraph.errors import InputError

if TYPE_CHECKING:
    from epigraph.compare.drafts import Draft, Tried

TRY_EXAMPLES = examples(
    'epigraph prompt try train.csv --text "Which department handles this message?"',
    "epigraph prompt try task.toml --file mine.txt --rows 200 --json",
)
LIST_EXAMPLES = examples("epigraph prompt list", "epigraph prompt list routing --json")
app = typer.Typer(
    help="Hard prompts: score one on rows at once, list all that were tried.",
    no_args_is_help=True,
    epilog=TRY_EXAMPLES,
)
MOST_TEXT = 70


@app.command("try", epilog=TRY_EXAMPLES)
def try_prompt(
    task: Annotated[str, typer.Argument(help="data file, task TOML, or folder with train.*")],
    *,
    text: Annotated[str, typer.Option("--text", help="the hard prompt; with a {field} in it the row stands there")] = "",
    file: Annotated[Path | None, typer.Option("--file", help="a file that holds the hard prompt")] = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="training rows to score on, always the same ones")] = 100,
    wrong: Annotated[int, typer.Option("--wrong", min=0, help="wrong answers to show")] = 10,
    task_kind: TaskKindFlag = "",
    base: BaseFlag = "default",
    device: DeviceFlag = "auto",
    dtype: DtypeFlag = "auto",
    library: LibraryFlag = LIBRARY,
    json: JsonFlag = False,
) -> None:
    """Score a hard prompt on training rows, show what it answers wrong, and keep it with its score."""
    from epigraph.base import load_base
    from epigraph.compare.drafts import DraftBook, check_draft, try_draft
    from epigraph.compare.errand import read_hard_prompts
    from epigraph.engine import Engine
    from epigraph.tasks.task import Task

    if bool(text) == (file is not None):
        raise InputError("give the hard prompt as --text or as --file, one of them.")
    said = read_hard_prompts([file])[0][1] if file is not None else text.replace("\\n", "\n")
    meant = Task.from_file(task, kind=task_kind or None)
    check_draft(meant, said)
    engine = Engine(load_base(base, dtype=dtype, device=device, note=say))
    tried = try_draft(engine, meant, said, rows=rows, book=DraftBook(library))
    print_json(tried.json) if json else show(tried, wrong)


@app.command("list", epilog=LIST_EXAMPLES)
def list_prompts(
    task: Annotated[str, typer.Argument(help="of this task only, by its name")] = "",
    *,
    library: LibraryFlag = LIBRARY,
    json: JsonFlag = False,
) -> None:
    """List every hard prompt that was tried, with its score."""
    from dataclasses import asdict

    from epigraph.compare.drafts import DraftBook

    found = DraftBook(library).all(task)
    if json:
        print_json({"drafts": [asdict(draft) for draft in found]})
        return
    if not found:
        say("no hard prompt was tried yet: epigraph prompt try train.csv --text …")
        return
    rows = [[d.task, str(d.number), _score(d), f"{d.rows}", d.when[:16], _short(d.text)] for d in found]
    print_table("", ["task", "draft", "score", "rows", "when (UTC)", "hard prompt"], rows)


def show(tried: "Tried", most: int) -> None:
    """The score, the comparison with the best before, and wrong answers."""
    draft, scores = tried.draft, tried.scores.json
    print(
        f"draft {draft.number} of {draft.task}: {METRIC_NAMES.get(draft.metric, draft.metric)} {_score(draft)}, {draft.rows} rows"
    )
    if "majority" in scores:
        floor = "always the same labels" if draft.metric == "micro_f1" else "always the most frequent label"
        print(f"{floor}: {share_text(scores['majority'])}")
    if tried.best_before is not None:
        old = tried.best_before
        print(f"best before on the same rows: draft {old.number}, {_score(old)}: {_short(old.text)}")
    if tried.wrong and most:
        rows = [
            [str(w.line), _short(" | ".join(w.fields.values())), w.truth, _short(w.predicted)] for w in tried.wrong[:most]
        ]
        print_table(f"{len(tried.wrong)} wrong answers", ["line", "row", "truth", "said"], rows)


def _score(draft: "Draft") -> str:
    score = draft.score
    return f"{share_text(score['value'])} [{share_text(score['low'])}–{share_text(score['high'])}]"


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MOST_TEXT else f"{text[: MOST_TEXT - 1]}…"
