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
from rust.py import third_party

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


@pytest.fixture(scope="module")
def linked() -> dict[str, third_party.Linked]:
    """The foreign crates in this machine's wheel, by name."""
    return {one.name: one for one in third_party.crates(third_party.host())}


def test_the_notice_names_what_is_linked_into_the_wheel(
    linked: dict[str, third_party.Linked],
) -> None:
    wanted = {"pyo3", "ring", "rusqlite", "libsqlite3-sys", "rustls", "tokio-postgres", "zstd-sys"}
    assert wanted <= linked.keys()
    locked = {
        (each["name"], each["version"])
        for each in tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    }
    for one in linked.values():
        assert (one.name, one.version) in locked
        assert one.licence
        assert all(one.texts.values()), one.name
        assert max(map(len, one.texts.values())) > 500, one.name
    assert "Permission to use, copy, modify" in linked["ring"].texts["LICENSE-other-bits"]
    assert "third_party/fiat/LICENSE" in linked["ring"].texts
    assert "Redistribution and use in source" in linked["zstd-sys"].texts["zstd/LICENSE"]


def test_the_notice_leaves_out_what_only_helps_to_build(
    linked: dict[str, third_party.Linked],
) -> None:
    manifests = [
        tomllib.loads((ROOT / "rust" / crate / "Cargo.toml").read_text())
        for crate in ("core", "py", "store")
    ]
    only_tests = {name for each in manifests for name in each.get("dev-dependencies", {})} - {
        name for each in manifests for name in each["dependencies"]
    }
    assert "proptest" in only_tests
    # A procedural macro, what it is made with, and what build scripts call.
    building = {"pyo3-macros", "syn", "proc-macro2", "cc", "pkg-config", "pyo3-build-config"}
    ours = {"sayiir-core", "sayiir-store", "sayiir-py"}
    assert not linked.keys() & (only_tests | building | ours)
    assert "zstd/COPYING" not in linked["zstd-sys"].texts  # Not the GPL: its other licence holds.


def test_the_notice_gives_each_text_once() -> None:
    one = third_party.Linked("one", "1.0", "MIT OR ISC", {"LICENSE": "Mine.", "NOTICE": "Shared."})
    two = third_party.Linked("two", "2.1", "ISC", {"LICENSE": "Shared."})
    text = third_party.notice([one, two])
    assert "one 1.0 - MIT OR ISC: [1] [2]\ntwo 2.1 - ISC: [2]\n" in text
    assert text.count("[1]\n\nMine.\n") == text.count("[2]\n\nShared.\n") == 1
    assert text.count("Shared.") == 1


def test_a_crate_without_a_text_or_a_licence_ends_the_notice(tmp_path: Path) -> None:
    own, other = "Do as you like. " * 19, "Of what it took over. " * 14
    (tmp_path / "licenses.rs").write_text(own)
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "LICENSE").write_text(other)
    (tmp_path / "LICENSE-MIT").write_text(" \n")
    (tmp_path / "LICENSE").write_text("MIT OR " + "x" * 292)
    with pytest.raises(third_party.NoticeError, match=r"bare 0\.1 \(MIT\) carries no licence text"):
        third_party.crate("bare", "0.1", "MIT", tmp_path)
    (tmp_path / "LICENSE").write_text("MIT OR " + "x" * 293)
    assert third_party.crate("bare", "0.1", "MIT", tmp_path).texts.keys() == {
        "LICENSE",
        "inside/LICENSE",
    }
    (tmp_path / "LICENSE").write_text(own)
    with pytest.raises(third_party.NoticeError, match=r"bare 0\.1 does not say its licence"):
        third_party.crate("bare", "0.1", "", tmp_path)
    assert third_party.crate("bare", "0.1", "MIT", tmp_path).texts == {
        "LICENSE": own.strip(),
        "inside/LICENSE": other.strip(),
    }


def test_the_standard_library_is_noticed_by_the_words_of_its_page(tmp_path: Path) -> None:
    with pytest.raises(third_party.NoticeError, match=r"lacks COPYRIGHT-library\.html"):
        third_party.standard_library(tmp_path, "1.88.0")
    folder = tmp_path / "share" / "doc" / "rust"
    folder.mkdir(parents=True)
    page = folder / "COPYRIGHT-library.html"
    page.write_text("<head><title>no</title></head>\n\n\n<p>&copy; <b>They</b></p>\n\n\n<p>MIT</p>")
    assert third_party.standard_library(tmp_path, "1.88.0").texts == {page.name: "© They\n\nMIT"}
    page.write_text("<head><title>no</title></head>")
    with pytest.raises(third_party.NoticeError, match="says nothing"):
        third_party.standard_library(tmp_path, "1.88.0")


def test_the_notice_is_one_file_or_a_sentence(tmp_path: Path) -> None:
    script = str(ROOT / "rust" / "py" / "third_party.py")
    unnamed = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert (unnamed.returncode, unnamed.stdout) == (1, "")
    assert unnamed.stderr == "usage: python rust/py/third_party.py FILE\n"
    lost = subprocess.run(
        [sys.executable, script, str(tmp_path / "notice.txt")],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert lost.returncode == 1
    assert lost.stderr == "`rustc` is not on the PATH; install a Rust toolchain\n"
    assert not list(tmp_path.iterdir())
