"""adapters/repairs.py: the list of what is repaired."""

from pathlib import Path

from adapters.repairs import REPAIR, REPAIRS

DOCUMENTED = (Path(__file__).parents[3] / "docs/use/api.md").read_text("utf-8")


def test_each_repair_is_documented() -> None:
    """Each has one name and one number."""
    assert len(REPAIRS) == len(REPAIR) == len({repair.name for repair in REPAIRS})
    assert [repair.name for repair in REPAIRS if f"| `{repair.name}` | {repair.meaning} |" not in DOCUMENTED] == []
