"""What ``epigraph library diff`` finds and shows: two cards, the vectors, and with a file the answers."""

from typing import TYPE_CHECKING, Any

from epigraph.cli.output import print_table, say, share_text

if TYPE_CHECKING:
    from epigraph.library import Library, StoredPrompt

TABLE_ROWS, TEXT = 20, 60
AXES = {"hidden": "hidden size", "layers": "layers", "kv_heads": "key/value heads", "head_size": "head size"}


def find_differences(
    library: "Library", first: str, second: str, data: str, *, strict: bool, base: str, device: str, dtype: str
) -> dict[str, Any]:
    """The command's object. NotFound for no such prompt, BaseMismatch for answers of prompts of two bases."""
    from epigraph.library.history import card_differences

    one, other = library.get(first), library.get(second)
    found: dict[str, Any] = {
        "first": one.card.reference,
        "second": other.card.reference,
        "card": [{"field": path, "first": a, "second": b} for path, a, b in card_differences(one.card, other.card)],
        "similarity": _similarity(one, other),
    }
    if axes := _other_axes(one, other):
        found["not_compared"] = f"the bases have other axes: {axes}"
    if data:
        found["answers"] = _answers(one, other, data, strict=strict, base=base, device=device, dtype=dtype)
    return found


def _similarity(one: "StoredPrompt", other: "StoredPrompt") -> dict[str, Any] | None:
    """Cosine of vectors matched one to one; None where the two have no such vectors, or of other axes."""
    from dataclasses import asdict

    from epigraph.explaining.pair import match
    from epigraph.prompts import Dependent

    first = [form for form in one.forms if not isinstance(form, Dependent)]
    second = [form for form in other.forms if not isinstance(form, Dependent)]
    if _other_axes(one, other) or len(first) < len(one.forms) or len(second) < len(other.forms):
        return None
    _, found = match(first, second)
    return None if found is None else {**asdict(found), "cka": list(found.cka)}


def _other_axes(one: "StoredPrompt", other: "StoredPrompt") -> str:
    """In which axes the bases of two prompts differ, in words; "" where in none."""
    pairs = [(name, getattr(one.card.base, name), getattr(other.card.base, name)) for name in AXES]
    return ", ".join(f"{AXES[name]} {a} and {b}" for name, a, b in pairs if a != b)


def _answers(
    one: "StoredPrompt", other: "StoredPrompt", data: str, *, strict: bool, base: str, device: str, dtype: str
) -> dict[str, Any]:
    from epigraph import metrics
    from epigraph.correct.answers import changes, right_of
    from epigraph.jobs import open_prompt
    from epigraph.methods import judge
    from epigraph.model import PromptModel, task_of

    task = task_of(one.card)
    rows = task.read_rows(data, need_target=False, strict=strict).rows
    model = open_prompt(one, base=base, device=device, dtype=dtype, note=say, keep=True)
    compared = PromptModel(other, model.method.engine.base, engine=model.method.engine)
    old, new = judge.answer(model.method, rows).given, judge.answer(compared.method, rows).given
    found = changes(task, rows, old, new).json
    if "broken" in found:
        found["p_mcnemar"] = metrics.mcnemar(right_of(task, rows, old), right_of(task, rows, new))
    found["differs"] = [
        {"line": row.line, "fields": dict(row.fields), "first": _said(a), "second": _said(b), "truth": row.target}
        for row, a, b in zip(rows, old, new, strict=True)
        if a != b
    ]
    return found


def _said(answer: Any) -> str:
    return ", ".join(answer) if isinstance(answer, tuple) else str(answer)


def show_differences(found: dict[str, Any]) -> None:
    """Tables for people."""
    first, second = found["first"], found["second"]
    rows = [[one["field"], _cell(one["first"]), _cell(one["second"])] for one in found["card"]]
    print_table("the cards", ["field", first, second], rows)
    alike = found["similarity"]
    if alike is None:
        print(f"vectors: not compared, {found.get('not_compared', 'they are of other forms')}")
    else:
        print(
            f"vectors: mean cosine {alike['cosine']:.4f} of {alike['matched']} matched (random ones: {alike['cosine_random']:.2f})"
        )
    if "answers" not in found:
        return
    said = found["answers"]
    print(f"answers: {said['changed']} of {said['rows']} differ ({share_text(said['share'])})")
    if "broken" in said:
        print(
            f"  {said['broken']} right in {first} alone, {said['fixed']} right in {second} alone, McNemar's p = {said['p_mcnemar']:.3g}"
        )
    shown = [
        [str(one["line"]), " | ".join(one["fields"].values())[:TEXT], one["first"], one["second"], one["truth"] or ""]
        for one in said["differs"][:TABLE_ROWS]
    ]
    if shown:
        print_table("", ["line", "text", first, second, "label"], shown)


def _cell(value: Any) -> str:
    text = "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= TEXT else text[: TEXT - 1] + "…"
