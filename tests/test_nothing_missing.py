"""`--nothing-missing`, with which continuous integration runs: a skipped test fails, but for hardware."""

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

TESTS = Path(__file__).parent

SAMPLES = {
    "in_test": "import pytest\ndef test(): pytest.skip('needs an RTSP server')",
    "marked": "import pytest\n@pytest.mark.skipif(True, reason='PyAV is missing')\ndef test(): pass",
    "module": "import pytest\npytest.importorskip('nowhere_to_be_had')\ndef test(): pass",
    "fixture": "import pytest\n@pytest.fixture\ndef server(): pytest.skip('needs ffprobe')\ndef test(server): pass",
    "gpu": "import pytest\npytest.skip('needs an NVIDIA GPU: none', allow_module_level=True)\ndef test(): pass",
    "camera": "import pytest\ndef test(): pytest.skip('needs a V4L2 camera: there is no /dev/video*')",
    "expected": "import pytest\n@pytest.mark.xfail\ndef test(): assert False",
    "good": "def test(): pass",
}


def _run(folder, *options):
    """The exit code, and what came of each sample."""
    report = folder / "report.xml"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "conftest", f"--junitxml={report}", *options, str(folder)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
    )
    outcomes = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = (case.get("classname") or case.get("name")).removeprefix("test_")
        outcomes[name] = next((child.tag for child in case), "passed")
    return done, outcomes


@pytest.fixture
def samples(tmp_path):
    for name, text in SAMPLES.items():
        (tmp_path / f"test_{name}.py").write_text(text)
    return tmp_path


def test_a_skip_fails_where_nothing_may_be_missing(samples):
    done, outcomes = _run(samples, "--nothing-missing", "--continue-on-collection-errors")
    assert {name for name, outcome in outcomes.items() if outcome in ("failure", "error")} == {
        "in_test", "marked", "module", "fixture"
    }  # fmt: skip
    assert {name for name, outcome in outcomes.items() if outcome == "skipped"} == {"gpu", "camera", "expected"}
    assert done.returncode == 1
    for name in ("an RTSP server", "PyAV", "nowhere_to_be_had", "ffprobe"):
        assert name in done.stdout, "what is missing is named"


def test_elsewhere_a_skip_is_one(samples):
    done, outcomes = _run(samples)
    assert done.returncode == 0
    assert {name for name, outcome in outcomes.items() if outcome != "passed"} == set(SAMPLES) - {"good"}
