import sys

import pytest

from epigraph.errors import Unsupported
from epigraph.methods.rivals.toys_test import label_task, make, toy_engine


@pytest.mark.parametrize("name", ["peft-prompt", "peft-prefix", "lora", "peft-documented"])
def test_without_peft_it_says_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(Unsupported, match=r"needs the `peft` library, which is not installed\. Run: pip install peft"):
        make(name, toy_engine(), label_task())


def test_full_fine_tuning_does_not_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    make("full", toy_engine(), label_task())
