"""How many neighbours a client needs, and how many of their shares open its secrets: (k, t) for a cohort.

Bell et al., "Secure Single-Server Aggregation with (Poly)Logarithmic Overhead", CCS 2020, sections 3 and 4. A
client's neighbours are k others, drawn without replacement; so the corrupt and the missing among them are hypergeometric,
and their tails are computed in whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import ceil, comb, inf, log2

import numpy as np

from koinon.errors import ConfigurationError
from koinon.tree import Array

COMPLETE_BELOW = 100
"""Cohorts below it have the complete graph: everybody is everybody's neighbour."""
LARGEST_COHORT = 10_000


class Coordinator(Enum):
    """What the coordinator is taken for."""

    HONEST_BUT_CURIOUS = "it follows the protocol and draws the graph"
    MALICIOUS = "it may send anybody anything"


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """What is assumed of a cohort.

    ``corrupt`` is the share, at most 1/3, of members that may work together with the coordinator, ``dropped`` the share,
    at most 1/3, that may go missing. The protocol's secrecy fails with a probability of at most ``2**-security`` over the
    draw of neighbours, and a round with so many missing fails with one of at most ``2**-correctness``.
    """

    corrupt: float = 0.2
    dropped: float = 0.1
    security: int = 40
    correctness: int = 30

    def __post_init__(self) -> None:
        shares = 0 <= self.corrupt <= 1 / 3 and 0 <= self.dropped <= 1 / 3
        if not (shares and 0 < self.security <= 128 and 0 < self.correctness <= 128):
            raise ConfigurationError(
                f"Shares of 0 to 1/3 and 1 to 128 bits are possible; found {self!r}. A third of a cohort can be outvoted."
            )

    def corrupt_of(self, cohort: int) -> int:
        """Return how many members of a cohort may be corrupt, rounded up."""
        return ceil(self.corrupt * cohort - 1e-9)

    def dropped_of(self, cohort: int) -> int:
        """Return how many members of a cohort may go missing, rounded up."""
        return ceil(self.dropped * cohort - 1e-9)


@dataclass(frozen=True)
class Degree:
    """``neighbours`` (k) hold shares of a client's secrets, ``threshold`` (t) of them open one."""

    neighbours: int
    threshold: int


def quorum(cohort: int) -> int:
    """Return how many members must survive, and sign who did: more than two thirds.

    Two such sets of one cohort have more than a third in common, so an honest member, and it signs one set only.
    """
    return 2 * cohort // 3 + 1


def honest_survivors(cohort: int, assumptions: Assumptions) -> int:
    """Return how many honest members are at least in every sum that is opened: all that must survive, less the corrupt.

    In a sparse graph a coordinator can leave a few out by keeping shares back, so five sixths of these are counted on: it opens
    no sum of fewer (:func:`separable`).
    """
    stay = quorum(cohort) - assumptions.corrupt_of(cohort)
    return stay if cohort < COMPLETE_BELOW else 5 * stay // 6


def degree(cohort: int, assumptions: Assumptions) -> Degree:
    """Return the graph of a cohort of 3 to 10,000: complete below 100 and wherever no sparse one is safe."""
    if not 3 <= cohort <= LARGEST_COHORT:
        raise ConfigurationError(
            f"A secure sum is for 3 to {LARGEST_COHORT:,} clients; found {cohort:,}. Two would know each other's update."
        )
    sparse = None if cohort < COMPLETE_BELOW else sparse_degree(cohort, assumptions)
    return sparse or Degree(cohort, quorum(cohort))


def sparse_degree(
    cohort: int, assumptions: Assumptions, coordinator: Coordinator = Coordinator.MALICIOUS
) -> Degree | None:
    """Return the least k, with its least t, that satisfy the assumptions; None if only the complete graph does.

    >>> sparse_degree(1000, Assumptions(), Coordinator.HONEST_BUT_CURIOUS)
    Degree(neighbours=74, threshold=45)
    """
    malicious = coordinator is Coordinator.MALICIOUS
    threshold = 1
    for neighbours in range(2, cohort - 1, 1 if malicious else 2):
        threshold = max(threshold - 1, ceil(2 * neighbours / 3) if malicious else neighbours // 2)
        while threshold <= neighbours and not _safe(cohort, neighbours, threshold, assumptions, malicious):
            threshold += 1
        for found in (Degree(neighbours, t) for t in range(threshold, neighbours + 1)):
            if not _recovers(cohort, neighbours, found.threshold, assumptions):
                break
            if _connected(cohort, found, assumptions, malicious):
                return found
    return None


def holds(cohort: int, degree: Degree, assumptions: Assumptions) -> bool:
    """Return whether a client may give its secrets to such a graph: what it checks, whoever computed (k, t)."""
    k, t = degree.neighbours, degree.threshold
    if not 0 < t <= k <= cohort:
        return False
    if k == cohort:
        return t >= quorum(cohort)
    return (
        3 * t >= 2 * k
        and cohort >= COMPLETE_BELOW
        and _safe(cohort, k, t, assumptions, malicious=True)
        and separable(cohort, degree, assumptions) <= -assumptions.security
    )


def separable(cohort: int, degree: Degree, assumptions: Assumptions) -> float:
    """Return log2 of a bound on the probability that a malicious coordinator could open the sum of some survivors alone.

    It would have to find, after the neighbours are drawn, a set S of honest survivors that have no mask with the others, R.
    It says who is dead, keeps back from each of S the shares of those who have drawn it, and tells one of S that has not
    signed the survivors that up to k - t of its neighbours have not shared. For each s = |S| either bound serves: (i) each of S
    has 2t - k neighbours in S or corrupt, since t answer for its own mask and it was told of t; (ii) of R a signer in S has
    drawn none, and another at most k - t. So many honest ones sign that R has quorum - corrupt less the signers in S.
    Every set counts, whichever it likes best, below :func:`honest_survivors`. With s = 1, (i) is the chance that 2t - k
    neighbours of some client are corrupt.
    """
    n, k, t, corrupt = cohort, degree.neighbours, degree.threshold, assumptions.corrupt_of(cohort)
    honest, stay = n - corrupt, quorum(n) - corrupt
    factorials = np.concatenate([[0.0], np.cumsum(np.log2(np.arange(1, n + 1)))])

    def choose(a: Array, b: Array) -> Array:
        inside = (b >= 0) & (b <= a)
        c = np.clip(b, 0, a)
        return np.where(inside, factorials[a] - factorials[c] - factorials[a - c], -inf)

    def chance(marked: Array, least: int, most: int) -> Array:
        """Return log2 of the chance that ``least`` to ``most`` of k neighbours are marked, for each number of marked."""
        drawn = np.arange(max(0, least), most + 1)
        ways = choose(marked[:, None], drawn) + choose(n - 1 - marked[:, None], k - drawn)
        return np.minimum(0.0, np.logaddexp2.reduce(ways, axis=1) - choose(np.array(n - 1), np.array(k)))

    s = np.arange(1, max(2, 5 * stay // 6))
    by_closed = choose(np.array(honest), s) + s * chance(s - 1 + corrupt, 2 * t - k, k)
    signers = np.arange(s[-1] + 1)
    rest = np.maximum(stay - signers, 1)
    all_missed = np.concatenate([[0.0], signers[1:] * chance(rest[1:], 0, 0)])
    most_missed = np.maximum(chance(rest, 0, k - t), -n)  # bits enough, and 0 times it is 0
    by_missed = [float(np.max(all_missed[: i + 1] + (i - signers[: i + 1]) * most_missed[: i + 1])) for i in s.tolist()]
    return float(np.logaddexp2.reduce(np.minimum(by_closed, 2 * honest + np.array(by_missed))))


def _safe(cohort: int, k: int, t: int, assumptions: Assumptions, malicious: bool) -> bool:
    """Whether no client has t corrupt neighbours; against a malicious coordinator no 2t - k.

    With 2t > k + corrupt, one half of the honest neighbours and all corrupt ones cannot open one secret of a client, and
    the other half with the same corrupt ones its other.
    """
    corrupt = assumptions.corrupt_of(cohort)
    return _bits(cohort, corrupt, k, 2 * t - k if malicious else t) <= -assumptions.security


def _recovers(cohort: int, k: int, t: int, assumptions: Assumptions) -> bool:
    """Whether t neighbours of every client are left."""
    return _bits(cohort, assumptions.dropped_of(cohort), k, k - t + 1) <= -assumptions.correctness


def _connected(cohort: int, found: Degree, assumptions: Assumptions, malicious: bool) -> bool:
    if malicious:
        return separable(cohort, found, assumptions) <= -assumptions.security
    # A circle of k/2 neighbours to either side falls apart where k/2 in a row are gone.
    gone = assumptions.corrupt + assumptions.dropped
    return gone == 0 or log2(cohort) + found.neighbours / 2 * log2(gone) <= -assumptions.security


def _bits(cohort: int, marked: int, k: int, least: int) -> float:
    """Return log2 of cohort * Pr[at least ``least`` of k members, drawn from cohort - 1, are among ``marked``]."""
    others = cohort - 1
    if least <= 0:
        return log2(cohort)
    term, total = comb(marked, least) * comb(others - marked, k - least) if least <= k else 0, 0
    for drawn in range(least, min(k, marked) + 1):
        total += term
        free = others - marked - (k - drawn) + 1
        if free <= 0:  # fewer cannot be drawn from those without a mark: the ratio below starts from nothing
            term = comb(marked, drawn + 1) * comb(others - marked, k - drawn - 1)
        else:
            term = term * (marked - drawn) * (k - drawn) // ((drawn + 1) * free)
    return log2(cohort * total) - log2(comb(others, k)) if total else -inf
