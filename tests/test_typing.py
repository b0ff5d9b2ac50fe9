"""What a type checker says about a flow: right programs pass, and each wrong line is refused.

`tests/typing/accepted.py` must be without fault in mypy and in basedpyright. In
`tests/typing/refused.py` each line marked `# refused` must be reported by both, and no other.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import sayiir

CASES = Path(__file__).parent / "typing"
ACCEPTED = CASES / "accepted.py"
REFUSED = CASES / "refused.py"
PACKAGE = Path(sayiir.__file__).parent


def marked(path: Path) -> set[int]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return {number for number, line in enumerate(lines, 1) if line.endswith("# refused")}


def mypy(path: Path, folder: Path) -> set[int]:
    """The lines of a file that mypy, in strict mode, finds wrong."""
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", os.devnull]
    command += ["--cache-dir", str(folder / "cache"), "--no-error-summary", str(path)]
    env = {**os.environ, "MYPYPATH": str(PACKAGE.parent)}
    # A package that is installed is found as such, and must then not be named twice.
    if "site-packages" in PACKAGE.parts:
        del env["MYPYPATH"]
    run = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert run.returncode in (0, 1), run.stdout + run.stderr
    errors = [line for line in run.stdout.splitlines() if ": error: " in line]
    assert (run.returncode == 1) == bool(errors), run.stdout + run.stderr
    found = [re.match(rf".*{path.name}:(\d+): error: ", line) for line in errors]
    assert all(found), run.stdout
    return {int(match[1]) for match in found if match}


def basedpyright(path: Path, folder: Path) -> set[int]:
    """The lines of a file that basedpyright finds wrong."""
    config = {
        "include": [str(path)],
        "typeCheckingMode": "standard",
        "extraPaths": [str(PACKAGE.parent)],
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(config), encoding="utf-8")
    command = [sys.executable, "-m", "basedpyright", "-p", str(folder), "--outputjson"]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert run.returncode in (0, 1), run.stdout + run.stderr
    report = json.loads(run.stdout)
    assert report["summary"]["filesAnalyzed"] == 1, run.stdout
    wrong = [d for d in report["generalDiagnostics"] if d["severity"] == "error"]
    return {d["range"]["start"]["line"] + 1 for d in wrong}


def test_mypy_accepts_right_programs(tmp_path: Path) -> None:
    assert mypy(ACCEPTED, tmp_path) == set()


def test_mypy_refuses_each_wrong_line_and_no_other(tmp_path: Path) -> None:
    assert mypy(REFUSED, tmp_path) == marked(REFUSED)


def test_basedpyright_accepts_right_programs(tmp_path: Path) -> None:
    assert basedpyright(ACCEPTED, tmp_path) == set()


def test_basedpyright_refuses_each_wrong_line_and_no_other(tmp_path: Path) -> None:
    assert basedpyright(REFUSED, tmp_path) == marked(REFUSED)


def test_there_are_wrong_lines_to_refuse() -> None:
    assert len(marked(REFUSED)) > 25
