"""A comparison as a command asks for it: files in, a folder with cells and reports out; resumable by its folder.

comparison.json   what was asked          cells/   one file a finished cell          report.html, report.md, result.json
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from epigraph.base import load_base
from epigraph.compare.asked import CompareConfig
from epigraph.compare.comparison import Comparison
from epigraph.compare.material import gather
from epigraph.compare.report import comparison_json, make_page
from epigraph.compare.roster import make_methods
from epigraph.compare.session import compare
from epigraph.engine import Engine
from epigraph.errors import Corrupt, DataError, InputError, NotFound
from epigraph.library.disk import replace_file, storing
from epigraph.report import to_html, to_markdown
from epigraph.tasks.task import Task
from epigraph.tasks.text_file import read_text

ASKED = "comparison.json"
REPORTS = (".html", ".htm", ".md")
Note = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Errand:
    """What was asked for. ``written`` are the user's hard prompts as (name, text); ``folder`` keeps everything."""

    task: str
    folder: Path
    config: CompareConfig
    test: str = ""
    template: str = ""
    task_kind: str = ""
    base: str = "default"
    device: str = "auto"
    dtype: str = "auto"
    written: Sequence[tuple[str, str]] = field(default_factory=tuple)

    def to_dict(self) -> dict[str, Any]:
        """As it is kept in the folder."""
        said = {**asdict(self), "config": self.config.to_dict(), "written": [list(pair) for pair in self.written]}
        return {name: value for name, value in said.items() if name != "folder"}


def read_errand(folder: Path) -> Errand:
    """What the comparison in this folder was asked. NotFound if there is none, Corrupt if it cannot be read."""
    path = folder / ASKED
    if not path.is_file():
        raise NotFound(f"{folder} holds no comparison to go on with.", f"Give the folder that holds {ASKED}.")
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        config = CompareConfig.from_dict(said.pop("config"))
        written = tuple((str(name), str(text)) for name, text in said.pop("written"))
        return Errand(**said, folder=folder, config=config, written=written)
    except (ValueError, TypeError, KeyError) as error:
        raise Corrupt(f"{path} is no description of a comparison: {error}.", "Start the comparison anew.") from None


def read_hard_prompts(files: Sequence[Path]) -> tuple[tuple[str, str], ...]:
    """The user's hard prompts by the names of their files. NotFound, DataError where one cannot be read or is empty."""
    found: dict[str, str] = {}
    for file in files:
        if not file.is_file():
            raise NotFound(f"hard prompt {file} was asked, but there is no such file.", "Check its path.")
        if not file.read_bytes().strip():
            raise DataError(f"hard prompt {file} is empty.", "Write at least a few words in it.")
        text = read_text(file).strip("\n")
        name = file.stem if file.stem not in found else str(file)
        found[name] = text
    return tuple(found.items())


def run_errand(
    errand: Errand, *, note: Note = lambda _text: None, started: Callable[[Path], None] = lambda _folder: None
) -> Comparison:
    """Compare. Data, methods and settings are checked before the base is loaded; the folder is written after that."""
    asked: dict[str, Any] = {"test": errand.test or None, "template": errand.template or None}
    task = Task.from_file(errand.task, **asked, kind=errand.task_kind or None, strict=errand.config.strict)
    make_methods(errand.config, task, errand.written)
    gather(task, rows=errand.config.rows, tests=errand.config.tests)
    check_folder(errand)
    base = load_base(errand.base, dtype=errand.dtype, device=errand.device, note=note)
    with storing("a comparison", errand.folder):
        errand.folder.mkdir(parents=True, exist_ok=True)
        replace_file(errand.folder / ASKED, json.dumps(errand.to_dict(), ensure_ascii=False, indent=1).encode())
    started(errand.folder)
    return compare(
        base, task, errand.config, folder=errand.folder, hard_prompts=errand.written, engine=Engine(base), note=note
    )


def check_folder(errand: Errand) -> None:
    """InputError if the folder is of something else: reports of two tasks must not be mixed up."""
    path = errand.folder / ASKED
    if path.is_file() and (kept := read_errand(errand.folder)).task != errand.task:
        raise InputError(
            f"folder {errand.folder} holds a comparison of {kept.task}, and {errand.task} was asked.",
            "Pass another --folder.",
        )
    if not path.is_file() and errand.folder.is_dir() and any(errand.folder.iterdir()):
        raise InputError(f"folder {errand.folder} exists and holds no comparison.", "Pass another --folder.")


def check_report(report: Path | None) -> None:
    """InputError where the report would be in a format that is none of ours."""
    if report is not None and report.suffix.lower() not in REPORTS:
        raise InputError(
            f"report {report} was asked, but a report is a page (.html) or Markdown (.md).",
            f"Write --report {report.with_suffix('.html')}; a browser prints it as PDF.",
        )


def write_reports(comparison: Comparison, errand: Errand, command: str, report: Path | None) -> list[Path]:
    """The report as HTML and Markdown, and all figures as JSON; ``report`` is one more HTML file. What was written."""
    page = make_page(comparison, command)
    html = to_html(page)
    said = json.dumps(comparison_json(comparison), ensure_ascii=False, indent=1)
    files = {
        errand.folder / "report.html": html,
        errand.folder / "report.md": to_markdown(page),
        errand.folder / "result.json": said,
    }
    if report is not None:
        files[report] = html if report.suffix.lower() != ".md" else to_markdown(page)
    for path, content in files.items():
        with storing("the report", path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, content.encode())
    return list(files)
