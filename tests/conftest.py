"""What all tests share."""

import os
import re
import signal

import pytest

# Waiting OpenMP threads otherwise spin, and a busy neighbour on the same cores makes a small network 50 times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# A shell's background job ignores Ctrl-C, and the tests that send one would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)

HARDWARE = re.compile(r"needs an NVIDIA GPU|there is a GPU|cannot run engines on this machine|needs a V4L2 camera")
"""Reasons to skip that no package can take away."""


def pytest_addoption(parser):
    parser.addoption(
        "--nothing-missing",
        action="store_true",
        help="a skipped test counts as failed, unless hardware is missing (.ci/install brings all else)",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    return _nothing_missing(item.config, (yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    return _nothing_missing(collector.config, (yield))


def _nothing_missing(config, report):
    if config.getoption("nothing_missing") and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not HARDWARE.search(reason):
            report.outcome = "failed"
            report.longrepr = f"--nothing-missing: {reason}"
    return report
