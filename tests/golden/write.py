"""Freeze what is not frozen yet: `python -m tests.golden.write v1`.

Run by hand, with the name of a new folder beside this file, when a format version or a new kind of
value is released. The folder gets a file for each case that no folder of the same format version
has, and a `manifest.json`. What exists is out in the world: a folder that is there is refused, and
no file is ever written twice.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from . import layout
from .cases import CASES, Case

HERE = Path(__file__).resolve().parent


def manifests() -> dict[Path, dict[str, Any]]:
    """Every frozen folder with its manifest."""
    found = sorted(HERE.glob("*/manifest.json"))
    return {path.parent: json.loads(path.read_text(encoding="utf-8")) for path in found}


def entry(case: Case, data: bytes) -> dict[str, Any]:
    """What the manifest says of one file."""
    about: dict[str, Any] = {
        "holds": case.holds,
        "kind": data[5],
        "codec": data[6],
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    if data[7]:
        about["flags"] = data[7]
    if case.workflow is not None:
        about["definition_hash"] = case.workflow.definition_hash
    return about


def write(folder: Path) -> int:
    """Freeze the new cases in a new folder; how many there were."""
    if folder.exists():
        raise SystemExit(f"{folder.name} is frozen already; give the folder a new name")
    frozen = {
        name
        for manifest in manifests().values()
        if manifest["format_version"] == layout.VERSION
        for name in manifest["files"]
    }
    files = {f"{name}.bin": case for name, case in CASES.items() if f"{name}.bin" not in frozen}
    if not files:
        raise SystemExit("every case is frozen already; add one to cases.py first")
    folder.mkdir()
    manifest: dict[str, Any] = {"format_version": layout.VERSION, "files": {}}
    for name, case in files.items():
        data = case.write()
        (folder / name).write_bytes(data)
        manifest["files"][name] = entry(case, data)
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    (folder / "manifest.json").write_text(text, encoding="utf-8")
    return len(files)


if __name__ == "__main__":
    if len(sys.argv) != 2 or Path(sys.argv[1]).name != sys.argv[1]:
        raise SystemExit("usage: python -m tests.golden.write FOLDER   (for example v1)")
    count = write(HERE / sys.argv[1])
    sys.stdout.write(f"{count} files frozen in {sys.argv[1]}\n")
