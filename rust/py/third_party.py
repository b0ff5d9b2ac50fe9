"""The notice of what others wrote that is inside a wheel: `python rust/py/third_party.py FILE`.

The extension module holds the code of Rust crates and of Rust's standard library, and nearly all of
their licences ask that their text goes along with it. The notice names each crate with its version
and licence, and gives every text once. What is linked is asked of cargo, for the machine that
builds: procedural macros, build scripts and what only tests need are not in the wheel, so they are
not in the notice. The texts are those that lie in the sources cargo compiled.

It refuses to guess: a crate that carries no text ends it with a sentence, and nothing is written.
It knows nothing about the wheel; `make dist` puts the file where maturin takes it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CRATE = "sayiir-py"
_LICENCE = re.compile(r"(un)?licen[cs]e|copying|copyright|notice", re.IGNORECASE)
# Texts that lie in a crate's sources and hold for nothing in the wheel.
_NOT_LINKED = {
    ("libsqlite3-sys", "sqlcipher/LICENSE"),  # the other SQLite, which its `sqlcipher` chooses
    ("zstd-sys", "zstd/COPYING"),  # the GPL, which one may choose in place of zstd/LICENSE (BSD)
}
# A file with less only names a licence; the shortest one in use, the ISC's, has 700 characters.
_SHORTEST = 300
_RULE = "=" * 80


class NoticeError(Exception):
    """The notice cannot be written as it ought to be; the message says what is missing."""


@dataclass(frozen=True)
class Linked:
    """One piece of others' code in the wheel: `texts` holds file names and what they say."""

    name: str
    version: str
    licence: str
    texts: dict[str, str]


def host() -> str:
    """The target triple that cargo builds for on this machine."""
    found = re.search(r"^host: (\S+)$", _said("rustc", "-vV"), re.MULTILINE)
    if found is None:
        raise NoticeError("`rustc -vV` does not say for which host it builds")
    return found[1]


def crates(target: str) -> list[Linked]:
    """The foreign crates that are linked into the wheel for `target`, by name and version."""
    linked = set(
        re.findall(
            r"^(\S+) v(\S+)",
            _said(
                *("cargo", "tree", "--locked", f"--package={CRATE}", f"--target={target}"),
                *("--edges=normal,no-proc-macro", "--prefix=none", "--format={p}"),
            ),
            re.MULTILINE,
        )
    )
    known = json.loads(
        _said("cargo", "metadata", "--locked", "--format-version=1", f"--filter-platform={target}")
    )
    ours = set(known["workspace_members"])
    found = [
        crate(
            each["name"], each["version"], each["license"] or "", Path(each["manifest_path"]).parent
        )
        for each in known["packages"]
        if each["id"] not in ours and (each["name"], each["version"]) in linked
    ]
    return sorted(found, key=lambda one: (one.name, one.version))


def crate(name: str, version: str, licence: str, folder: Path) -> Linked:
    """One crate with every licence text that lies in its `folder`.

    Raises NoticeError if it says no licence, or carries no text of it at its top.
    """
    texts = {
        inside: path.read_text(encoding="utf-8", errors="replace").strip()
        for path in sorted(folder.rglob("*"))
        if _LICENCE.match(path.name) and path.suffix != ".rs" and path.is_file()
        if (name, inside := path.relative_to(folder).as_posix()) not in _NOT_LINKED
    }
    if not licence:
        raise NoticeError(f"{name} {version} does not say its licence; look at its repository")
    if not any(len(text) >= _SHORTEST for inside, text in texts.items() if "/" not in inside):
        raise NoticeError(
            f"{name} {version} ({licence}) carries no licence text in {folder}; "
            "take another version, or another crate"
        )
    return Linked(name, version, licence, {inside: text for inside, text in texts.items() if text})


def standard_library(toolchain: Path, version: str) -> Linked:
    """Rust's standard library, which rustc links into everything, from its folder of notices."""
    file = toolchain / "share" / "doc" / "rust" / "COPYRIGHT-library.html"
    if not file.is_file():
        raise NoticeError(
            f"the Rust toolchain in {toolchain} lacks {file.name}; build with one from rustup"
        )
    page = _Page()
    page.feed(file.read_text(encoding="utf-8"))
    text = re.sub(r"\n\s*\n+", "\n\n", "".join(page.said)).strip()
    if not text:
        raise NoticeError(f"{file} says nothing; install the Rust toolchain anew")
    return Linked("Rust's standard library", version, "MIT OR Apache-2.0", {file.name: text})


class _Page(HTMLParser):
    """The words of a page, without its head and tags."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        self._silent = False

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._silent = self._silent or tag in ("head", "style", "script")

    def handle_endtag(self, tag: str) -> None:
        self._silent = self._silent and tag not in ("head", "style", "script")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.said.append(data)


def notice(linked: Iterable[Linked]) -> str:
    """The text of the notice: a list of all that is `linked`, then each text once."""
    numbers: dict[str, int] = {}
    names: list[str] = []
    for one in linked:
        cited = [f"[{numbers.setdefault(text, len(numbers) + 1)}]" for text in one.texts.values()]
        names.append(f"{one.name} {one.version} - {one.licence}: {' '.join(dict.fromkeys(cited))}")
    opening = (
        "The extension module in this wheel holds code of others, linked into it. Each is named\n"
        "here with its version, its licence and the numbers of the texts below that came with it.\n"
    )
    texts = [f"{_RULE}\n[{number}]\n\n{text}\n" for text, number in numbers.items()]
    return "\n".join([opening, *names, "", *texts])


def _said(*command: str) -> str:
    try:
        # The words are this file's own.
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)  # noqa: S603
    except FileNotFoundError:
        raise NoticeError(f"`{command[0]}` is not on the PATH; install a Rust toolchain") from None
    if done.returncode != 0:
        raise NoticeError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout


def main(arguments: list[str]) -> str | None:
    """Write the notice into the file that is named; what it returns is what went wrong."""
    if len(arguments) != 1:
        return "usage: python rust/py/third_party.py FILE"
    try:
        toolchain = Path(_said("rustc", "--print=sysroot").strip())
        library = standard_library(toolchain, _said("rustc", "--version").split()[1])
        text = notice([library, *crates(host())])
    except NoticeError as error:
        return str(error)
    file = Path(arguments[0])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
