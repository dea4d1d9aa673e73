"""What is said where a file's columns leave a doubt: what was found, what was looked for, and the TOML that settles it."""

from epigraph.errors import TaskError
from epigraph.tasks.headers import OUTPUT, plain
from epigraph.tasks.table import Table


def missing(table: Table, what: str) -> TaskError:
    """The error for a column that was asked for and is not there."""
    return TaskError(
        f"{table.source} has no column for {what}. Found: {', '.join(table.columns)}.",
        "Rename the column, or name it in a task TOML under [columns].",
    )


def ambiguous(table: Table, ways: list[str]) -> TaskError:
    """The error for columns that go together in several ways ("text → label"); the hint writes out the first."""
    text, label = ways[0].split(" → ")
    return TaskError(
        f"{table.source} can be read in several ways: {'; '.join(ways[:6])}. Found: {', '.join(table.columns)}.",
        _settle(table, text.split(" + ")[0], label),
    )


def not_found(table: Table, texts: list[str], labels: list[str]) -> TaskError:
    """The error for columns that do not say what they are; what was recognised of them is said."""
    part = ""
    if len(texts) == 1:
        part = f" {texts[0]!r} reads as the text, but nothing reads as its label or output."
    elif len(labels) == 1:
        part = f" {labels[0]!r} reads as the label, but nothing reads as its text."
    return TaskError(
        f"{table.source}: which columns are the input and the answer is not clear.{part} Found: {', '.join(table.columns)}."
        " Looked for: text + label (and names like sentence, review, message; category, class, intent), input + output,"
        " prompt + completion, question + answer, premise + hypothesis + label, messages, conversations, alpaca.",
        _settle(table, texts[0] if len(texts) == 1 else "…", labels[0] if len(labels) == 1 else "…"),
    )


def _settle(table: Table, text: str, label: str) -> str:
    """The lines of a task TOML that end the doubt."""
    field, target = ("input", "output") if plain(label) in OUTPUT else ("text", "label")
    columns = f'[columns] {field} = "{text}" {target} = "{label}"'
    return f'Say it in a task TOML and give that instead: {columns} and [data] train = "{table.source}".'
