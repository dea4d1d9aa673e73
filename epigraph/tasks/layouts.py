"""Records whose example is spread over turns or three columns, brought to ``input`` and ``output``.

    messages        [{"role": "user", "content": …}, {"role": "assistant", "content": …}]    (OpenAI)
    conversations   [{"from": "human", "value": …}, {"from": "gpt", "value": …}]              (ShareGPT)
    alpaca          instruction, input (may be empty), output

A system text goes before the input. A chat must be one user turn and one assistant turn; any other is a fault of its row.
"""

from collections.abc import Mapping
from typing import Any

from epigraph.tasks.headers import find
from epigraph.tasks.row import Fault
from epigraph.tasks.table import Table

CHATS = ("messages", "conversations", "conversation")
_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
}


def find_layout(table: Table) -> str:
    """``messages``, ``conversations``, ``alpaca`` or ``plain``."""
    for name in CHATS:
        column = find(name, table.columns)
        if column is not None and any(isinstance(value, list) for value in table.values(column)):
            return "messages" if name == "messages" else "conversations"
    if find("instruction", table.columns) and (find("output", table.columns) or find("response", table.columns)):
        return "alpaca"
    return "plain"


def unfold(table: Table, layout: str) -> Table:
    """The same rows with columns ``input`` and ``output`` (None where a row has no answer); other columns stay."""
    if layout == "plain":
        return table
    records, lines, faults = [], [], list(table.faults)
    for record, line in zip(table.records, table.lines, strict=True):
        pair = _alpaca(record, table) if layout == "alpaca" else _chat(record, table)
        if isinstance(pair, str):
            faults.append(Fault(line=line, reason=pair))
        else:
            records.append({**record, "input": pair[0], "output": pair[1]})
            lines.append(line)
    columns = tuple(dict.fromkeys((*table.columns, "input", "output")))
    return Table(columns=columns, records=tuple(records), lines=tuple(lines), faults=tuple(faults), source=table.source)


def _cell(record: Mapping[str, Any], table: Table, *names: str) -> Any:
    column = next((column for column in (find(name, table.columns) for name in names) if column is not None), None)
    return None if column is None else record.get(column)


def _alpaca(record: Mapping[str, Any], table: Table) -> tuple[str, Any]:
    parts = (_cell(record, table, "instruction"), _cell(record, table, "input"))
    text = "\n".join(part.strip() for part in parts if isinstance(part, str) and part.strip())
    return text, _cell(record, table, "output", "response")


def _chat(record: Mapping[str, Any], table: Table) -> tuple[str, str | None] | str:
    """Input and output of a chat, or the reason why it is not one user turn and one assistant turn."""
    turns = _cell(record, table, *CHATS)
    if not isinstance(turns, list):
        return "no list of turns"
    said: dict[str, list[str]] = {"system": [], "user": [], "assistant": []}
    for turn in turns:
        role, text = _turn(turn)
        if role is None or text is None:
            return "a turn without a known role or a text"
        said[role].append(text)
    if len(said["user"]) != 1 or len(said["assistant"]) > 1:
        return f"{len(said['user'])} user and {len(said['assistant'])} assistant turns, one of each is expected"
    system = _cell(record, table, "system")
    if isinstance(system, str) and system.strip() and not said["system"]:
        said["system"].append(system)
    return "\n".join(text.strip() for text in (*said["system"], *said["user"])), next(iter(said["assistant"]), None)


def _turn(turn: object) -> tuple[str | None, str | None]:
    if not isinstance(turn, Mapping):
        return None, None
    role = _ROLES.get(str(turn.get("role", turn.get("from", ""))).lower())
    content = turn.get("content", turn.get("value"))
    if isinstance(content, list):  # OpenAI's content parts
        parts = [part.get("text") for part in content if isinstance(part, Mapping) and part.get("type", "text") == "text"]
        content = "\n".join(part for part in parts if isinstance(part, str))
    return role, content if isinstance(content, str) else None


def can_unfold(table: Table, layout: str) -> bool:
    """Whether another file of a task, perhaps without answers, can be read by the layout of its training file."""
    if layout == "alpaca":
        return find("instruction", table.columns) is not None
    return layout != "plain" and any(find(name, table.columns) for name in CHATS)
