"""What a submit does when the id it brings is taken.

A choice of three words and their check. That each of them is carried out atomically is the
backend's promise; nothing is looked up or stored here.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

__all__ = ["ConflictPolicy", "ConflictPolicyLike", "conflict_policy_of"]


class ConflictPolicy(StrEnum):
    """What a submit does when an instance of its id exists. Each equals its text.

    >>> ConflictPolicy("use_existing") is ConflictPolicy.USE_EXISTING
    True
    """

    FAIL = "fail"
    """Refuse with `InstanceAlreadyExistsError`."""
    USE_EXISTING = "use_existing"
    """Answer with the existing instance, whatever the input."""
    TERMINATE_EXISTING = "terminate_existing"
    """Remove the existing instance, its events and results, and start a new one, in one step."""


ConflictPolicyLike = ConflictPolicy | Literal["fail", "use_existing", "terminate_existing"]
"""A policy or its text."""


def conflict_policy_of(value: object) -> ConflictPolicy:
    """The policy that an argument `conflict_policy` means.

    Raises:
        TypeError: It is not text.
        ValueError: There is no such policy.

    >>> conflict_policy_of("fail")
    <ConflictPolicy.FAIL: 'fail'>
    """
    if type(value) is ConflictPolicy:
        return value
    choices = ", ".join(repr(str(policy)) for policy in ConflictPolicy)
    if not isinstance(value, str):
        raise TypeError(f"conflict_policy must be one of {choices}, got {type(value).__name__}")
    try:
        return ConflictPolicy(value)
    except ValueError:
        raise ValueError(f"conflict_policy must be one of {choices}, got {value[:80]!r}") from None
