"""A participant: it enrols, waits for work, trains on its own data, sends its update, and outlives every crash."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from koinon import tree
from koinon.channel.secure_sum import secure_sum_of
from koinon.core.execution import Engine
from koinon.core.types import Purpose
from koinon.errors import FleetError, FormatError, KoinonError, StoreError
from koinon.exact import LARGEST_WEIGHT
from koinon.fleet.participant.connection import Connection, Reach, Unreachable
from koinon.fleet.participant.enrolment import enrolled_party
from koinon.fleet.participant.fault import reason_of
from koinon.fleet.participant.floors import Floors
from koinon.fleet.participant.keep import COMMITS, Enrolled, Keep
from koinon.fleet.participant.making import Made, Maker, Unfit, adds_noise
from koinon.fleet.participant.secure_sum import SecureSums
from koinon.fleet.participant.sending import Exchange
from koinon.fleet.wire.abilities import OFFERS
from koinon.fleet.wire.claim import Claim
from koinon.fleet.wire.codecs import known
from koinon.fleet.wire.link import JoinLink
from koinon.fleet.wire.pieces import Pieces
from koinon.fleet.wire.receipts import canonical
from koinon.fleet.wire.refusal import Refusal
from koinon.fleet.wire.signatures import digest, encoded, signed_text
from koinon.privacy.hiding import hiding
from koinon.round.training import FederatedTraining
from koinon.store.run_directory import difference, short
from koinon.work.private import PrivateTraining

_LAST_SECONDS = 10.0
_TROUBLE_SECONDS = 5.0
_FAREWELL_SECONDS = 600.0  # that a run's last words are waited for
_RECEIPTS_SECONDS = 1.0  # between two fetches
_PROGRESS_SECONDS = 60.0  # between two words on it
_SEND_AGAIN = ("corrupt", "incomplete", "unknown", "too_large")  # damaged on its way, or a coordinator began anew
_SEND_AGAIN_SECONDS = (0.0, 0.1, 0.5, 1.0, 2.0, 4.0)
_IS_OVER = ("over", "not_open", "refused", "conflict")  # a round that needs nothing more of this participant
_OWN_FAULT = ("malformed", "too_large")  # the same would come of the same work
_FOR_GOOD = ("revoked", "superseded", "challenge", "other_app", "codec", "roster")  # decisions: nothing mends them
_CHALLENGES = 5  # that may be lost one after the other
_CHALLENGE_SECONDS = 30.0  # after which one may have grown too old
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Participation:
    """Everything a participant brings. ``training`` is over a dataset of one client: its own."""

    training: FederatedTraining
    engine: Engine
    agreement: Mapping[str, Any]
    name: str
    link: JoinLink
    floors: Floors
    reach: Reach  # its url and authority are the link's, or those of an earlier enrolment
    run: str | None = None  # the run's name, where the coordinator has several of the same app
    once: bool = False


@dataclass(frozen=True)
class Ended:
    """How a run ended for a participant."""

    state: str  # finished, cancelled, failed, or once: its one round is sent
    stopped: str
    digest: str | None
    model: Path | None


def participate(part: Participation, folder: Path, say: Callable[[str], None]) -> Ended:
    """Take part in a run until it is over. Raises FleetError, Refusal, CompositionError."""
    part.floors.check(part.training.plan.algorithm.check(OFFERS))
    keep = Keep(folder)
    try:
        if part.floors.roster is not None:
            keep.accept_roster(part.floors.roster)
        enrolled = enrolled_party(part.name, part.link, part.reach, keep, say)
        reach = replace(part.reach, url=enrolled.url, authority=enrolled.authority)
        participant = Participant(part, keep, enrolled, Connection(reach, say), say)
        return participant.take_part()
    finally:
        keep.close()


class Participant:
    """One party in one run."""

    def __init__(
        self, part: Participation, keep: Keep, enrolled: Enrolled, connection: Connection, say: Callable[[str], None]
    ) -> None:
        self._part, self._keep, self._enrolled, self._say = part, keep, enrolled, say
        self._connection = connection
        self._connection.renew = self._session
        self._run, self._chunk_bytes = "", 0
        self._maker: Maker
        self._exchange: Exchange
        self._receipts, self._fetched_at, self._said_at = 0, -math.inf, -math.inf

    def take_part(self) -> Ended:
        """Work until the run is over."""
        before = self._ended_before()
        if before is not None:  # it may be served anew; else its coordinator is gone for good
            self._connection.patience = min(self._connection.patience, _LAST_SECONDS)
        joined, well = False, time.monotonic()
        while True:
            try:
                if not joined:
                    self._join()
                    before, joined, self._connection.patience = None, True, self._part.reach.patience
                work = self._exchange.work()
                ended = None if work is None else self._turn(work)
            except Unreachable:
                if before is None:
                    raise
                return before
            except (StoreError, Refusal) as error:  # this disk has no room, or the coordinator has forgotten something
                if _for_good(error) or time.monotonic() - well > self._part.reach.patience:
                    raise
                self._say(f"{error} Trying again in {_TROUBLE_SECONDS:g} s")
                time.sleep(_TROUBLE_SECONDS)
                if joined := joined and isinstance(error, StoreError):
                    self._exchange.begin_anew()
                continue
            if ended is not None:
                return ended
            well = time.monotonic()

    def _ended_before(self) -> Ended | None:
        """Return how this app's run ended, if this folder knows: the same line is started again at every boot."""
        own = digest(canonical(self._part.agreement).encode())
        for path in sorted((self._keep.folder / "runs").glob("*.jsonl")):
            notes = self._keep.noted("runs", path.stem)
            if notes and notes[-1].get("state") and any(note.get("app") == own for note in notes):
                model = self._keep.folder / f"{next(note['name'] for note in notes if 'name' in note)}.safetensors"
                known = model if model.exists() else None
                return Ended(notes[-1]["state"], "it had ended when this line ran before", notes[-1]["digest"], known)
        return None

    def _turn(self, work: Mapping[str, Any]) -> Ended | None:
        """Take in what is told and do what is asked; return how the run ended, once it has."""
        outcome = work["outcome"]
        if outcome["round"]:
            self._keep.decide(self._run, outcome["round"], accepted=outcome["accepted"])
        if work["state"] in (Purpose.TRAIN.value, Purpose.EVALUATE.value):
            behind = self._is_behind(max(int(outcome["round"]), int(work["round"]) - 1))
            self._exchange.waits = not (behind or self._part.once or self._maker.opens)
            sent = self._work(work)
            if behind:
                self._fetch_receipts()
            if sent and self._part.once and work["state"] == Purpose.TRAIN.value:
                return Ended("once", f"round {work['round']} is sent", None, None)
        elif work["state"] != "idle":
            return self._ended(work)
        else:
            self._maker.finish(self._idle, self._fail)
        return None

    def _session(self) -> str:
        """Return a session's token; a challenge that a lost answer used up, or a restart voided, is asked for anew."""
        wrong = 0
        while True:
            began = time.monotonic()
            try:
                return self._answered_challenge()
            except Refusal as refusal:
                wrong += time.monotonic() - began < _CHALLENGE_SECONDS
                if refusal.code != "challenge" or wrong > _CHALLENGES:
                    raise

    def _answered_challenge(self) -> str:
        client = self._enrolled.client
        challenge = self._connection.call("POST", "/v1/challenge", {"client": client}, signed_in=False)["challenge"]
        signature = encoded(self._keep.key.sign(signed_text("session", client, challenge)))
        body = {"client": client, "challenge": challenge, "signature": signature}
        token: str = self._connection.call("POST", "/v1/session", body, signed_in=False)["token"]
        return token

    def _join(self) -> None:
        """Find the run of this very app and join it."""
        part = self._part
        own = digest(canonical(part.agreement).encode())
        runs = self._connection.call("GET", "/v1/runs")["runs"]
        mine = [run for run in runs if run["app"] == own and part.run in (None, run["name"])]
        if not mine:
            raise self._no_run(runs)
        self._run = mine[0]["run"]
        told = self._describe()
        if digest(canonical(told["description"]).encode()) != own:
            raise FleetError("The coordinator describes another app than the one whose hash it gives. Do not join it.")
        data, only = part.training.plan.data, np.array([0])
        counts = {
            f"{name}_examples": int(data.span(only, held_out=held_out)[1][0])
            for name, held_out in (("train", False), ("held_out", True))
        }
        algorithm = part.training.plan.algorithm
        hidden = hiding(algorithm) is not None  # then weights, which are such counts, are hidden, too
        said = {name: min(1, count) for name, count in counts.items()} if hidden else counts
        body = {"app": own, **said, "codecs": known(algorithm.wires()[-1][1]), "versions": {}}
        self._connection.call("POST", f"/v1/runs/{self._run}/join", body)
        floors = part.floors
        least = floors.least(hiding(algorithm))
        sums = SecureSums(self._connection, self._keep, self._enrolled.client, least, floors.roster, bytes.fromhex(own))
        self._maker = Maker(part.training, part.engine, self._keep, self._connection, sums, self._run, floors.cohort)
        self._exchange = Exchange(self._connection, self._run, self._maker, int(told.get("carried_bytes", 0)))
        self._receipts = len(self._keep.noted("receipts", self._run))
        self._fetch_receipts()
        self._keep.note("runs", self._run, {"name": mine[0]["name"], "app": own})
        what, stay = ("example", "it stays") if (count := counts["train_examples"]) == 1 else ("examples", "they stay")
        self._say(f"Joined {mine[0]['name']} with {count:,} {what} to train on; {stay} here")
        if (step := secure_sum_of(algorithm)) is not None:
            self._say(step.protection(roster=floors.roster is not None))

    def _describe(self) -> dict[str, Any]:
        """Return what the coordinator says of the run."""
        told: dict[str, Any] = self._connection.call("GET", f"/v1/runs/{self._run}")
        self._chunk_bytes = int(told["chunk_bytes"])
        return told

    def _no_run(self, runs: list[dict[str, Any]]) -> FleetError:
        """Return what is different between this app and the coordinator's."""
        wanted = [run for run in runs if self._part.run in (None, run["name"])]
        if not wanted:
            return FleetError(
                f"The coordinator has no run {self._part.run!r}. It has {', '.join(repr(run['name']) for run in runs) or 'none'}."
            )
        theirs = self._connection.call("GET", f"/v1/runs/{wanted[0]['run']}")["description"]
        where, found, asked = difference(theirs, self._part.agreement) or ("hash", wanted[0]["app"], "another")
        return FleetError(
            f"The coordinator's run {wanted[0]['name']!r} has another {where}: {short(found)}, and this app has {short(asked)}. "
            "Both sides need the same file, the same --set and the same koinon. Nothing was sent."
        )

    def _is_behind(self, finished: int) -> bool:
        """Return whether to fetch receipts of rounds that are over, once nobody waits for this participant; of quick rounds, some at once."""
        return finished > self._receipts and time.monotonic() > self._fetched_at + _RECEIPTS_SECONDS

    def _fetch_receipts(self) -> None:
        found = self._connection.call("GET", f"/v1/runs/{self._run}/receipts?since={self._receipts}")["receipts"]
        for receipt in found:
            self._keep.note("receipts", self._run, receipt)
            self._receipts += 1
        self._fetched_at = time.monotonic()

    def _work(self, work: Mapping[str, Any]) -> bool:
        """Do what is asked; return whether it was sent."""
        purpose = Purpose(work["purpose"])
        if work["cohort"] < self._part.floors.cohort:
            return self._fail(work, f"a cohort of {work['cohort']} is below this participant's floor")
        if self._has_answered_enough(work):
            return self._fail(
                work, f"this participant answers {self._part.floors.rounds:,} rounds at most, of all runs, and has"
            )
        if purpose is Purpose.TRAIN and self._asked_before_with_another_model(work):
            return self._fail(
                work, "this round was answered for another model; a second answer would cost privacy that nobody counts"
            )
        try:
            return self._done(work)
        except Refusal as refusal:
            if refusal.code in _IS_OVER:
                self._say(f"Round {work['round']}: {refusal}")
                return False
            if not _for_good(refusal):
                self._fail(work, str(refusal))
            if refusal.code in _OWN_FAULT:
                return False
            raise
        except (FleetError, StoreError):
            raise
        except Unfit as error:
            if not isinstance(error.__cause__, KoinonError):
                _LOG.exception("Round %d cannot be computed here", work["round"])
            self._say(f"Round {work['round']}: {error}")
            return self._fail(work, "its update cannot be added up; why is said at this participant, and nowhere else")
        except Exception as error:  # noqa: BLE001 - a fault of this app, or of a model that does not fit it
            return self._fail(work, reason_of(error, work["round"]))

    def _has_answered_enough(self, work: Mapping[str, Any]) -> bool:
        """Return whether this would be one round more than it answers: a coordinator's word on how many there are is none."""
        most, number = self._part.floors.rounds, work["round"]
        known = any(self._keep.answered(self._run, number, own.value) for own in (Purpose.TRAIN, Purpose.EVALUATE))
        return most is not None and not known and self._keep.rounds_answered() >= most

    def _asked_before_with_another_model(self, work: Mapping[str, Any]) -> bool:
        """Return whether an answer would be a second private release of one round."""
        algorithm = self._part.training.plan.algorithm
        if not (adds_noise(algorithm) or isinstance(algorithm.work, PrivateTraining)):
            return False
        return self._keep.answered(self._run, work["round"], work["purpose"]) not in (None, work["model"])

    def _done(self, work: Mapping[str, Any]) -> bool:
        """Make what is asked for and send it; return whether it was sent."""
        made = self._maker.made(work, lambda: self._still_asked(work))
        if made is None or not self._send(work, made):
            return False
        self._maker.open(work)
        if time.monotonic() > self._said_at + _PROGRESS_SECONDS:
            self._say(f"Round {work['round']}: an update is sent")
            self._said_at = time.monotonic()
        return True

    def _idle(self) -> bool:
        return bool(self._connection.call("GET", f"/v1/runs/{self._run}/work?wait=0")["state"] == "idle")

    def _still_asked(self, work: Mapping[str, Any]) -> bool:
        """Return whether the coordinator asks for the very same as before."""
        now = self._connection.call("GET", f"/v1/runs/{self._run}/work?wait=0")
        return all(now.get(name) == work[name] for name in ("state", "round", "purpose", "attempt"))

    def _send(self, work: Mapping[str, Any], made: Made) -> bool:
        """Upload what is missing and commit it; what it leaves on this disk is written first."""
        weight, most = made.weight, LARGEST_WEIGHT - 1
        if not 1 <= weight <= most:
            return self._fail(work, f"a weight of {weight} cannot be sent: it must be from 1 to {most}")
        if tree.leaves(made.state):
            self._keep.stage(self._run, work["round"], made.state)
        at, file = f"/v1/runs/{self._run}/rounds/{work['round']}/{work['purpose']}", Pieces(made.pieces)
        for pause in (*_SEND_AGAIN_SECONDS, None):
            claim = file.claim(self._chunk_bytes)
            try:
                self._exchange.send(at, claim, file, self._word(work, claim, weight))
                break
            except Refusal as refusal:
                if refusal.code not in _SEND_AGAIN or pause is None:
                    raise
                self._say(f"Round {work['round']}: {refusal}")
                time.sleep(pause)
                self._describe()
        return True

    def _word(self, work: Mapping[str, Any], claim: Claim, weight: int) -> dict[str, Any]:
        """Return what this participant signs of its update, and keep it: what may be in a receipt is known here."""
        lines = (self._run, work["round"], work["purpose"], self._enrolled.client, work["model"])
        signature = encoded(self._keep.key.sign(signed_text("update", *lines, claim.root, claim.size, weight)))
        word = {"root": claim.root, "weight": weight, "model": work["model"], "signature": signature}
        told = {"round": work["round"], "purpose": work["purpose"], "bytes": claim.size, **word}
        self._keep.note(COMMITS, self._run, told)
        return word

    def _fail(self, work: Mapping[str, Any], reason: str) -> bool:
        """Tell the coordinator why this participant cannot."""
        self._say(f"Round {work['round']}: {reason}")
        at = f"/v1/runs/{self._run}/rounds/{work['round']}/{work['purpose']}"
        try:
            self._connection.call("POST", f"{at}/failure", {"reason": reason[:2000]})
        except Refusal as refusal:
            if _for_good(refusal):
                raise
        return False

    def _ended(self, work: Mapping[str, Any]) -> Ended:
        """Return how the run ended, with the final model and the rest of the receipts on this disk."""
        self._connection.patience = min(self._connection.patience, _FAREWELL_SECONDS)
        path, model = None, work.get("model")
        try:
            try:
                if model:
                    name, size = self._describe()["name"], self._connection.size(model)
                    path = self._keep.model(name, self._connection.download(model, size))
                self._fetch_receipts()
            finally:
                self._maker.end()
        except (FormatError, FleetError) as error:
            if _for_good(error):
                raise
            self._say(f"The run is over, and not all of it is here: {error} Start the same line again for the rest.")
        self._keep.note("runs", self._run, {"state": work["state"], "model": model, "digest": work.get("digest")})
        self._leave(int(work["serial"]))
        return Ended(work["state"], work["stopped"], work.get("digest"), path)

    def _leave(self, serial: int) -> None:
        """Let the coordinator know that this participant has all it wants: it may stop serving now."""
        try:
            self._connection.call("GET", f"/v1/runs/{self._run}/work?since={serial}&wait=0")
        except FleetError as error:
            self._say(f"The coordinator did not hear the goodbye: {error}")


def _for_good(error: Exception) -> bool:
    """Return whether an error is somebody's decision that this participant has to end."""
    return isinstance(error, Refusal) and error.code in _FOR_GOOD
