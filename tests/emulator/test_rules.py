"""Every rule: a script that breaks it raises, and the same script put right passes."""

import re
from pathlib import Path

import pytest

from emulator import (
    RuleBroken,
    cases_addresses,
    cases_driver,
    cases_engines,
    cases_graphs,
    cases_memory,
    cases_streams,
)
from emulator.samples import CASES, Case

FOLDER = Path(__file__).parent
SCRIPTS = [pytest.param(case, id=f"{case.rule}: {case.script.__name__}") for case in CASES]
# said of what cannot be made to happen by a script that uses the stand-ins alone
ELSEWHERE = {"two-emulators", "destroyed-stream", "deadlock"}

assert cases_addresses and cases_driver and cases_engines and cases_graphs and cases_memory and cases_streams


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("case", SCRIPTS)
def test_the_wrong_script_raises(case: Case) -> None:
    with pytest.raises(RuleBroken, match=rf"\[{case.rule}\]"):
        case.run(wrong=True)


@pytest.mark.parametrize("case", SCRIPTS)
def test_the_right_script_passes(case: Case) -> None:
    case.run(wrong=False)


def test_every_rule_has_a_script_and_a_row() -> None:
    named = re.compile(r"(?:broken|note|refuse)\(\s*\"([a-z-]+)\"")
    inside = {
        rule for path in FOLDER.glob("*.py") if "test" not in path.name for rule in named.findall(path.read_text())
    }
    inside |= {"after-close", "race", "shared-context-memory"}  # these are said by other ways
    assert inside - ELSEWHERE == {case.rule for case in CASES}
    rows = (FOLDER / "README.md").read_text()
    assert [rule for rule in sorted(inside - {"two-emulators"}) if f"`{rule}`" not in rows] == []
