"""What is handed out: the source distribution, the wheel, and what both say of themselves.

Looks at what this change would release, not at the tree: at the sdist that is packed here, and at
the wheel that is installed. It builds nothing (`make dist` does, and tries it in empty
environments), so an sdist from which nothing can be built is found by what it lacks.
"""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
FOR_CONTRIBUTORS = {"bench", "dev", "docs", "examples", "test"}
MOST_BYTES = 8 * 1024 * 1024


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of the sdist, by their path in it."""
    folder = tmp_path_factory.mktemp("sdist")
    command = [str(Path(sys.executable).with_name("maturin")), "sdist", "--out", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (archive,) = folder.iterdir()
    assert archive.name == f"sayiir-{PROJECT['version']}.tar.gz"
    with tarfile.open(archive) as opened:
        found = {}
        for member in opened.getmembers():
            data = opened.extractfile(member)
            assert data is not None, f"{member.name} is no file"
            found[member.name.split("/", 1)[1]] = data.read()
    return found


def sources() -> set[str]:
    """What the wheel is made of, as it stands in the tree."""
    kept = {".py", ".pyi", ".typed", ".rs", ".sql", ".toml"}
    places = [ROOT / "python", *sorted(ROOT.glob("rust/*/src"))]
    return {
        str(path.relative_to(ROOT))
        for place in places
        for path in place.rglob("*")
        if path.suffix in kept or path.name == "py.typed"
    }


def test_the_sdist_has_all_that_the_wheel_is_made_of(packed: dict[str, bytes]) -> None:
    wanted = sources() | {
        # Without it SQLite would be compiled with other switches.
        ".cargo/config.toml",
        "CHANGELOG.md",
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE",
        "PKG-INFO",
        "README.md",
        "pyproject.toml",
        *(f"rust/{crate}/Cargo.toml" for crate in ("core", "py", "store")),
    }
    assert wanted <= packed.keys(), sorted(wanted - packed.keys())
    for name in wanted - {"PKG-INFO", "Cargo.toml"}:
        if name.endswith("Cargo.toml"):
            continue  # Maturin writes manifests anew.
        assert packed[name] == (ROOT / name).read_bytes(), name


def test_the_sdist_has_nothing_that_was_built(packed: dict[str, bytes]) -> None:
    built = re.compile(r"\.(so|pyc|pyd|whl|db)$|__pycache__|(^|/)(target|build|dist|\.venv)/")
    assert not [name for name in packed if built.search(name)]
    assert sum(map(len, packed.values())) < MOST_BYTES


def test_the_wheel_that_is_installed() -> None:
    installed = distribution("sayiir")
    assert installed.version == PROJECT["version"]
    wheel = installed.read_text("WHEEL") or ""
    assert f"Tag: cp{sys.version_info.major}{sys.version_info.minor}-" in wheel
    files = {str(file) for file in installed.files or []}
    extension = f"sayiir/_core{sysconfig.get_config_var('EXT_SUFFIX')}"
    typed = {"sayiir/py.typed", "pytest_sayiir/py.typed", "sayiir/_core.pyi"}
    assert {extension, *typed} <= files
    of_python = {name.removeprefix("python/") for name in sources() if name.startswith("python/")}
    assert of_python <= files, sorted(of_python - files)
    others = {name for name in files if not re.match(r"(sayiir|pytest_sayiir)(/|-)", name)}
    assert all(name.endswith("/bin/sayiir") for name in others), others
    (file,) = Path(sys.prefix, "wheel").glob("*.whl")
    assert file.stat().st_size <= MOST_BYTES


def test_what_the_distribution_says_of_itself() -> None:
    said = distribution("sayiir").metadata
    assert said["Requires-Python"] == PROJECT["requires-python"]
    assert said["License-Expression"] == "MIT"
    assert said["Description-Content-Type"].startswith("text/markdown")
    assert {"Typing :: Typed", "Framework :: AsyncIO"} <= set(said.get_all("Classifier") or [])
    assert set(said.get_all("Provides-Extra") or []) == set(EXTRAS)
    names = {point.name: point.group for point in distribution("sayiir").entry_points}
    assert names == {"sayiir": "console_scripts", "pytest_sayiir": "pytest11"}


def test_all_is_every_extra_that_a_program_can_use() -> None:
    (everything,) = EXTRAS["all"]
    named = re.fullmatch(r"sayiir\[(.+)\]", everything)
    assert named is not None
    assert set(named[1].split(",")) == EXTRAS.keys() - FOR_CONTRIBUTORS - {"all"}


def test_every_dependency_says_from_which_version_on() -> None:
    for extra, wanted in [("", PROJECT["dependencies"]), *EXTRAS.items()]:
        for one in wanted:
            assert one.startswith("sayiir[") or re.search(r">=\d", one), f"{extra}: {one}"
