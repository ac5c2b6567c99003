"""Four real hospitals' heart-disease records (UCI, CC BY 4.0), shipped with koinon.

The columns are those of FLamby's Fed-Heart-Disease (Ogier du Terrail et al., NeurIPS 2022): of the 13 inputs
slope, ca and thal are dropped (most hospitals miss them), chest pain type and resting ECG become indicators
without their first level, and rows that miss anything else are left out: 740 patients, 13 inputs. The label is
1 for any degree of disease.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources

import numpy as np

from koinon.data.dataset import FederatedDataset, assemble
from koinon.errors import DataError
from koinon.tree import Array

HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
INPUTS = 13
_FILES = resources.files("koinon.data") / "heart_disease"
_KEPT = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 13)
_CHEST_PAIN = (2.0, 3.0, 4.0)  # column 2; level 1 is the reference
_RESTING_ECG = (1.0, 2.0)  # column 6; level 0 is the reference


@dataclass(frozen=True)
class Hospital:
    """One hospital's usable records."""

    name: str
    x: Array  # float64 [patients, 13], as measured
    y: Array  # float32 [patients], 1 where there is disease
    test: Array  # bool [patients]: FLamby's test rows


def hospitals() -> tuple[Hospital, ...]:
    """Return the four hospitals' records as measured: 303, 261, 46 and 130 patients."""
    return tuple(_hospital(name) for name in HOSPITALS)


def heart(*, holdout: float = 0.34, seed: int = 0, scaled_by: Sequence[str] = HOSPITALS) -> FederatedDataset:
    """Return the four hospitals as clients, each with the share ``holdout`` of its patients drawn for judging.

    The inputs are standardised by the mean and standard deviation over the training patients of the
    hospitals in ``scaled_by``. These follow from three sums that each of them can send instead of its records:
    how many patients, the sum of every input, the sum of its squares. Raises DataError for a hospital that is none.
    """
    if not scaled_by or not set(scaled_by) <= set(HOSPITALS):
        raise DataError(f"scaled_by names some of the hospitals {', '.join(HOSPITALS)}; found {list(scaled_by)}.")
    every = hospitals()
    sizes = np.array([len(hospital.y) for hospital in every])
    x, y = np.concatenate([h.x for h in every]), np.concatenate([h.y for h in every])
    data = assemble(x.astype(np.float32), y, HOSPITALS, np.arange(len(y)), sizes, holdout=holdout, seed=seed)
    starts, counts = data.span(np.array([HOSPITALS.index(name) for name in scaled_by]), held_out=False)
    training = [x[data.rows[start : start + count]] for start, count in zip(starts, counts, strict=True)]
    total = sum(len(part) for part in training)
    mean = sum(part.sum(axis=0) for part in training) / total
    variance = (sum((part**2).sum(axis=0) for part in training) - total * mean**2) / (total - 1)
    spread = np.sqrt(np.maximum(variance, 0.0))
    return replace(data, x=((x - mean) / np.where(spread > 1e-6, spread, 1.0)).astype(np.float32))


def flamby() -> FederatedDataset:
    """Return the four hospitals with FLamby's own split: 486 training and 254 test patients.

    Each hospital is standardised by its own training patients, as FLamby's benchmark does it.
    """
    every = hospitals()
    x = np.concatenate([standardised(h.x, h.x[~h.test]) for h in every]).astype(np.float32)
    sizes = np.array([len(h.y) for h in every])
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    rows = [start + np.argsort(h.test, kind="stable") for start, h in zip(offsets, every, strict=False)]
    held_out = np.array([h.test.sum() for h in every], np.int32)
    y = np.concatenate([h.y for h in every])
    return FederatedDataset(x, y, HOSPITALS, np.concatenate(rows).astype(np.int32), offsets, held_out)


def standardised(x: Array, training: Array) -> Array:
    """Return ``x`` less the mean of ``training``, over its standard deviation (of a sample; 1 where it is 0)."""
    spread = training.std(axis=0, ddof=1)
    return (x - training.mean(axis=0)) / np.where(spread > 0, spread, 1.0)


def _hospital(name: str) -> Hospital:
    with (_FILES / f"processed.{name}.data").open(encoding="ascii") as file:
        lines = list(csv.reader(file))
    with (_FILES / "flamby_split.csv").open(encoding="ascii") as file:
        fold = {int(row["raw_row"]): row["fold"] for row in csv.DictReader(file) if row["center"] == name}
    kept = [(i, [float(line[c]) for c in _KEPT]) for i, line in enumerate(lines) if "?" not in [line[c] for c in _KEPT]]
    values = np.array([row for _, row in kept])
    return Hospital(
        name,
        _inputs(values),
        (values[:, -1] > 0).astype(np.float32),
        np.array([fold[i] == "test" for i, _ in kept]),
    )


def _inputs(values: Array) -> Array:
    """Return the plain columns, then the indicators."""
    plain = np.delete(values[:, :-1], [2, 6], axis=1)
    pain = [values[:, 2] == level for level in _CHEST_PAIN]
    ecg = [values[:, 6] == level for level in _RESTING_ECG]
    return np.column_stack([plain, *pain, *ecg]).astype(np.float64)
