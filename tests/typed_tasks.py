"""Tasks on typed values that run in a process of their own. A spawned child imports this module."""

from dataclasses import dataclass

from sayiir import task


@dataclass(frozen=True)
class Parcel:
    what: str
    weights: tuple[float, ...]


@task(run_in="process")
def weigh(parcel: Parcel) -> Parcel:
    return Parcel(parcel.what, tuple(2 * weight for weight in parcel.weights))
