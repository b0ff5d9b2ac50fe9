"""The pytest plugin, as a project of somebody else meets it.

Each test writes a small project into a folder of its own and lets a fresh pytest run it, with no
plugin but ours: what such a project may not need is not there.
"""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from tests.papers import ROOT

import pytest_sayiir

pytest_plugins = ["pytester"]

OURS = Path(pytest_sayiir.__file__).parent.parent
NAMES = [
    "BackendContract",
    "CrashPoint",
    "CrashReport",
    "HandWorker",
    "Held",
    "HintContract",
    "History",
    "Mock",
    "SyncTestEnvironment",
    "TestEnvironment",
    "VirtualClock",
    "assert_never_ran",
    "assert_ran",
    "assert_ran_once",
    "crash_after_each_step",
    "crash_after_each_step_async",
    "new_instance",
]
WORKFLOW = """
from sayiir import Flow, task

@task(retries=2)
def charge(cents):
    raise ConnectionError("never in a test")

remind = Flow("remind").then(charge).delay("a month", "30d").then(str, name="text").build()
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A folder with a workflow, in which pytest finds our plugin and no other."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_PLUGINS", "pytest_sayiir")
    monkeypatch.setenv("PYTHONPATH", str(OURS))
    pytester.makepyfile(reminders=WORKFLOW)
    pytester.makeini(
        "[pytest]\naddopts = --strict-config --strict-markers\nfilterwarnings = error\n"
    )
    return pytester


def test_a_project_with_pytest_alone(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import sys
        from reminders import remind

        def test_a_month(sayiir_env):
            env = sayiir_env.sync
            charge = env.mock("charge", returns=7)
            before = env.now
            parked = env.run(remind, 700)
            assert (parked.status, charge.calls) == ("waiting", [700])
            env.advance("30d")
            assert env.status(parked).output == "7"
            assert (env.now - before).days == 30
            assert "pytest_asyncio" not in sys.modules

        def test_each_has_its_own(sayiir_env):
            assert sayiir_env.client.backend.now() == sayiir_env.now.timestamp()
            assert "0 instances" in repr(sayiir_env)
        """
    )
    project.runpytest_subprocess().assert_outcomes(passed=2)


def test_an_async_test_under_any_plugin(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest
        from reminders import remind

        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        @pytest.mark.anyio
        async def test_with_anyio(sayiir_env):
            sayiir_env.mock("charge", returns=7)
            assert await sayiir_env.result(await sayiir_env.run(remind)) == "7"

        @pytest.mark.asyncio
        async def test_with_pytest_asyncio(sayiir_env):
            sayiir_env.mock("charge", returns=7)
            assert await sayiir_env.result(await sayiir_env.run(remind)) == "7"
        """
    )
    others = ["-p", "anyio", "-p", "pytest_asyncio.plugin", "-o", "asyncio_mode=strict"]
    scope = ["-o", "asyncio_default_fixture_loop_scope=function"]
    project.runpytest_subprocess(*others, *scope).assert_outcomes(passed=2)


def test_a_failing_assertion_shows_what_ran(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        from reminders import remind
        from sayiir.testing import assert_ran

        def test_it(sayiir_env):
            env = sayiir_env.sync
            env.mock("charge", raises=OSError("down"), times=1)
            env.mock("charge", returns=1)
            assert_ran(env.history(env.run(remind)), "charge", "text")
        """
    )
    result = project.runpytest_subprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*'text' did not run to a good end. The history:", "*charge: *"])


def test_a_run_that_does_not_use_it_does_not_import_the_package(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import sys

        def test_nothing():
            assert "pytest_sayiir" in sys.modules
            assert not [name for name in sys.modules if name.partition(".")[0] == "sayiir"]
        """
    )
    project.runpytest_subprocess().assert_outcomes(passed=1)


def test_it_is_shown_among_the_fixtures(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess("--fixtures")
    result.stdout.fnmatch_lines(["sayiir_env*", "*a clock that the test moves*"])


def test_the_package_announces_it() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert settings["project"]["entry-points"]["pytest11"] == {"pytest_sayiir": "pytest_sayiir"}
    assert "pytest_sayiir" in settings["tool"]["maturin"]["python-packages"]


def test_the_environment_needs_no_pytest() -> None:
    program = (
        "import sys, sayiir.testing as testing\n"
        "assert testing.TestEnvironment().sync.now\n"
        "assert not {'pytest', 'pytest_asyncio', 'hypothesis'} & set(sys.modules)\n"
        "assert testing.BackendContract.__name__ == 'BackendContract'\n"
        "assert 'pytest' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_name_that_is_not_there_is_refused() -> None:
    import sayiir.testing

    with pytest.raises(AttributeError, match="no attribute 'Contract'"):
        _ = sayiir.testing.Contract


def test_the_public_names() -> None:
    import sayiir.testing

    assert sayiir.testing.__all__ == NAMES == sorted(NAMES) == dir(sayiir.testing)
    for name in NAMES:
        assert getattr(sayiir.testing, name).__doc__, name
