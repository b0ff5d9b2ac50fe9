"""Figures: what a test measured, kept as one JSON file for each test and backend.

They are written only when `SAYIIR_RESULTS` names a folder; a plain run leaves nothing behind. Each
file tells the seed and the machine's size, so that a figure can be made again. No test hangs on it.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def keep(test: str, url: str, seed: int, figures: Mapping[str, Any]) -> Path | None:
    """Write the figures of one test; the file, or `None` when nobody asked for it.

    Args:
        test: What was measured, such as `kills`; it names the file.
        url: The backend's; only its scheme is kept.
        seed: What brings the run back.
        figures: Plain numbers and texts, units last in their names.

    >>> os.environ.pop("SAYIIR_RESULTS", None) and None
    >>> keep("kills", "memory://", 1, {"kills": 40}) is None
    True
    """
    where = os.environ.get("SAYIIR_RESULTS")
    if where is None:
        return None
    backend = url.partition(":")[0]
    folder = Path(where)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{test}-{backend}.json"
    known = {
        "test": test,
        "backend": backend,
        "seed": seed,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        **{
            name: round(value, 3) if isinstance(value, float) else value
            for name, value in figures.items()
        },
    }
    file.write_text(json.dumps(known, indent=2) + "\n")
    return file
