"""Which rows nobody may look at before a comparison is made."""

from epigraph.compare.drafts import trying_rows
from epigraph.compare.material import gather
from epigraph.tasks.task import Task


def test_drafts_are_not_tried_on_the_rows_that_a_comparison_tests_on() -> None:
    """16 of 100 rows that hard prompts were rewritten on were rows that they were scored on afterwards."""
    task = Task.from_rows([f"text {i}" for i in range(100)], ["good", "bad"] * 50)
    tried, tested = trying_rows(task), gather(task, rows=None, tests=None).test
    assert (len(tried), len(tested)) == (85, 15)
    assert not {row.fields["text"] for row in tried} & {row.fields["text"] for row in tested}
