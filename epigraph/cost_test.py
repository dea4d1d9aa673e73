"""Energy counters as Linux shows them, in a folder made up for it."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from epigraph import cost
from epigraph.cost import Meter, processor_power

MEASURED = "measured (RAPL: the CPU packages, whoever used them)"


def write_zone(folder: Path, zone: str, name: str, microjoules: int, most: int = 1_000_000_000) -> None:
    (folder / zone).mkdir(parents=True, exist_ok=True)
    for file, said in (("name", name), ("energy_uj", str(microjoules)), ("max_energy_range_uj", str(most))):
        (folder / zone / file).write_text(f"{said}\n")


@pytest.fixture
def zones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cost, "RAPL", tmp_path)
    return tmp_path


def test_joules_are_those_of_the_packages_alone(zones: Path) -> None:
    """The zone of the whole machine was added to that of the package within it: joules were counted twice."""
    for zone, name in (("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "core"), ("intel-rapl:1", "psys")):
        write_zone(zones, zone, name, 5_000_000)
    meter = Meter()
    for zone, name in (("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "core"), ("intel-rapl:1", "psys")):
        write_zone(zones, zone, name, 9_000_000)
    assert meter.energy() == {"joules": 4.0, "joules_source": MEASURED}


def test_a_counter_that_began_anew_is_followed(zones: Path) -> None:
    """One of two packages' counters ran over, the sum still rose, and what was said to be measured lacked its whole range."""
    write_zone(zones, "intel-rapl:0", "package-0", 90_000_000, most=100_000_000)
    write_zone(zones, "intel-rapl:1", "package-1", 0)
    meter = Meter()
    write_zone(zones, "intel-rapl:0", "package-0", 10_000_000, most=100_000_000)
    write_zone(zones, "intel-rapl:1", "package-1", 200_000_000)
    assert meter.energy()["joules"] == 220.0


def test_without_a_counter_joules_are_estimated_and_say_so(zones: Path) -> None:
    assert "estimated" in Meter().energy()["joules_source"]
    write_zone(zones, "intel-rapl:0", "package-0", 1)
    meter = Meter()
    (zones / "intel-rapl:0" / "energy_uj").write_text("hidden")
    assert "estimated" in meter.energy()["joules_source"]


@pytest.mark.parametrize(
    ("known", "said"),
    [(True, "codecarbon: a whole Chip 9"), (False, "codecarbon: its guess, since it does not know Chip 9")],
)
def test_a_guessed_power_is_not_said_to_be_the_processors(monkeypatch: pytest.MonkeyPatch, known: bool, said: str) -> None:
    """Of processors that are not in its table codecarbon gives 4 watts a core, and these stood as "8 W (codecarbon, AMD EPYC)"."""

    class TDP:
        model, tdp = "Chip 9", 8.0

        def _get_cpu_power_from_registry(self, _model: str) -> float | None:
            return 8.0 if known else None

    for name in ("codecarbon", "codecarbon.core", "codecarbon.core.cpu"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    cpu: Any = sys.modules["codecarbon.core.cpu"]
    cpu.TDP = TDP
    power = processor_power.__wrapped__()
    assert power.watts == 8.0
    assert said in power.source
