"""``epigraph bench``: measure on this machine."""

import time
from pathlib import Path
from typing import Annotated

import typer

from epigraph.cli.options import JsonFlag, examples
from epigraph.cli.output import print_json, print_table, say, size_text

app = typer.Typer(
    help="Measure on this machine; the data are the folders of $EPIGRAPH_DATA.",
    no_args_is_help=True,
    epilog=examples("epigraph bench tuning --sets sst2 --seeds 1"),
)
COLUMNS = [
    "method",
    "seconds",
    "frozen",
    "ms a step",
    "memory",
    "rate",
    "accuracy",
    "× first",
    "bound",
    "× later",
    "bound",
    "× once",
    "bound",
    "× to accuracy",
]


@app.command("tuning", epilog=examples("epigraph bench tuning", "epigraph bench tuning --sets imdb --steps 10 --json"))
def tuning(
    sets: Annotated[str, typer.Option(help="folders of $EPIGRAPH_DATA, with commas")] = "sst2,trec6,ag_news,imdb",
    methods: Annotated[
        str, typer.Option(help="epigraph (kv), once (kv, rows read once), token and rivals, with commas")
    ] = "epigraph,once,token,peft-prompt,peft-prefix,peft-documented,lora,full",
    rows: Annotated[int, typer.Option(min=1, help="training rows")] = 1000,
    tests: Annotated[int, typer.Option(min=1, help="test rows")] = 500,
    epochs: Annotated[int, typer.Option(min=1, help="passes over the training rows")] = 3,
    seeds: Annotated[int, typer.Option(min=1, help="how many seeds")] = 3,
    steps: Annotated[int, typer.Option(min=0, help="time the rivals over so many steps only; 0: all")] = 0,
    base: Annotated[str, typer.Option(help="the embedded base, a folder or a hub name")] = "default",
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16")] = "auto",
    out: Annotated[
        Path | None, typer.Option(help="keep every result here at once; the same command with the same file goes on")
    ] = None,
    *,
    json: JsonFlag = False,
) -> None:
    """Our tuning beside its rivals: seconds, memory, accuracy, and how many times as long they take."""
    from epigraph.bench.tuning import BenchConfig, bench_tuning

    found = bench_tuning(
        BenchConfig(
            sets=sets.split(","),
            methods=methods.split(","),
            rows=rows,
            tests=tests,
            epochs=epochs,
            seeds=seeds,
            steps=steps or None,
            base=base,
            dtype=dtype,
            out=out if out is not None else Path("results") / f"bench-tuning-{time.strftime('%Y%m%d-%H%M%S')}.jsonl",
        ),
        say,
    )
    if json:
        print_json(found)
        return
    for name, table in found["summary"].items():
        print_table(name, COLUMNS, [_cells(row) for row in table])


def _cells(row: dict[str, object]) -> list[str]:
    numbers = [
        row.get(key)
        for key in (
            "times_epigraph",
            "bound_epigraph",
            "times_later",
            "bound_later",
            "times_once",
            "bound_once",
            "times_to_accuracy",
        )
    ]
    return [
        str(row["method"]),
        f"{row['seconds']}{' *' if row['extrapolated'] else ''}",
        str(row["frozen_seconds"]),
        f"{1000 * float(str(row['step_seconds'])):.0f}",
        size_text(int(str(row["memory"]))),
        f"{float(str(row['rate_share'])):.0%}",
        "" if row["accuracy"] is None else f"{float(str(row['accuracy'])):.3f}",
        *("" if number is None else str(number) for number in numbers),
    ]
