"""Test settings: hypothesis is derandomised, so that a run is the same everywhere; what takes longest is begun first."""

import pytest
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("support.claims")
settings.register_profile("ci", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci")

LONG = ("test_machines.py", "test_targets.py")


def pytest_addoption(parser):
    parser.addoption("--no-skips", action="store_true", help="a test that is skipped is a failure")
    parser.addoption("--half", type=int, choices=(0, 1), help="of the cases of each test, run the first or the second half")


def pytest_collection_modifyitems(config, items):
    """Choose the cases of `--half`. Begin with the long tests, in both halves of the list: two processes begin with a half each."""
    half = config.getoption("--half")
    if half is not None:
        tests = {}
        for item in items:
            tests.setdefault(item.nodeid.partition("[")[0], []).append(item)
        # A test of one case is in both halves.
        items[:] = [one for cases in tests.values() for one in (cases[: -(-len(cases) // 2)], cases[len(cases) // 2 :])[half]]
    long = [item for item in items if item.path.name in LONG]
    rest = [item for item in items if item.path.name not in LONG]
    items[:] = long[::2] + rest[: len(rest) // 2] + long[1::2] + rest[len(rest) // 2 :]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    """Fail where a test was skipped and none may be."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if session.config.getoption("--no-skips") and skipped:
        names = ", ".join(sorted({report.nodeid for report in skipped}))
        reporter.write_line(f"skipped, with --no-skips: {names}", red=True)
        session.exitstatus = 1
