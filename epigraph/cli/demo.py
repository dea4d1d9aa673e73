"""``epigraph demo``: the whole path on real data in one command."""

from typing import TYPE_CHECKING

from epigraph.cli.options import LIBRARY, JsonFlag, LibraryFlag, examples
from epigraph.cli.output import METRIC_NAMES, metrics_in, print_json, print_table, program, say, scores_rows, size_text
from epigraph.cli.progress import Progress

if TYPE_CHECKING:
    from epigraph.demo import DemoResult

EXAMPLES = examples("epigraph demo", "epigraph demo --library /tmp/demo-library --json")


def demo(*, library: LibraryFlag = LIBRARY, json: JsonFlag = False) -> None:
    """Tune on 1,000 critics' sentences, score on 1,000 others beside hard prompts, store, load again, predict."""
    from epigraph.demo import run_demo
    from epigraph.tuning import Surroundings

    with Progress() as progress:
        around = Surroundings(listener=progress.moment, stage=progress.stage)
        result = run_demo(library, note=say, around=around)
    print_json(result.json) if json else _show(result, str(library))


def _show(result: "DemoResult", library: str) -> None:
    tuned = result.tuned
    metrics = metrics_in(tuned.scores)
    named = {f"soft prompt {result.card.reference}": tuned.scores}
    if result.few_shot is not None:
        named[f"few-shot hard prompt (best of 3 draws: {result.few_shot_name})"] = result.few_shot.json
    named["zero-shot hard prompt"] = tuned.hard.json
    rows = scores_rows(named, metrics)
    print_table("", [f"{tuned.scores['rows']} held-out sentences, 95% intervals", *(METRIC_NAMES[m] for m in metrics)], rows)
    cost = tuned.cost
    print(
        f"set up in {result.set_up_seconds:.0f} s; tuned in {cost['seconds']:.0f} s on 1,000 sentences: "
        f"{size_text(cost['kept_bytes'])} kept; whole demo {result.seconds:.0f} s after set-up\n"
    )
    for prediction in result.predictions:
        label, text = prediction["label"], next(iter(prediction["fields"].values()))
        print(f"  {label} ({prediction['probabilities'][label]:.2f})  {text}")
    where, called = "" if library == "library" else f" --library {library}", program()
    print(
        f"\nThe same with your own file (columns are found by themselves):\n\n"
        f"  {called} tune yours.csv --name yours{where}\n"
        f"  {called} evaluate yours --data test.csv{where}\n"
        f'  {called} predict yours "a new text"{where}'
    )
