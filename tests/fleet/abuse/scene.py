"""A run with two honest parties, one with each kind of key, who finish a round whenever a test needs a new one."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import bare
import numpy as np
import processes

SECONDS = 20.0
ORIGIN = "http://127.0.0.1:1"  # of a page that may call


@dataclass
class Round:
    """One open round, as its two parties see it."""

    number: int
    run: str
    lyon: bare.Update
    nice: bare.Update


@dataclass
class Scene:
    """The run and its parties: ``lyon`` signs with Ed25519, ``nice`` with P-256."""

    fleet: processes.Fleet
    run: Mapping[str, Any]
    lyon: bare.Party
    nice: bare.Party
    leaves: Mapping[str, Any]  # of an update
    used: int = 0  # the last round that a test has had

    @classmethod
    def of(cls, fleet: processes.Fleet) -> Scene:
        """Enrol the parties and let them join."""
        parties = [
            bare.Party(fleet.url, name, bare.Key(kind)) for name, kind in (("lyon", "ed25519"), ("nice", "p256"))
        ]
        run: Mapping[str, Any] = {}
        for party in parties:
            for answer in (party.enrol(fleet.invite(party.name)), party.begin()):
                assert answer.status == 200, answer
            run = next(run for run in party.call("GET", "/v1/runs").json["runs"] if run["name"] == "app")
            assert party.join(run).status == 204
        lyon, nice = parties
        return cls(fleet, run, lyon, nice, good_leaves())

    @property
    def key(self) -> str:
        """The run's identifier."""
        return str(self.run["run"])

    @property
    def operator(self) -> str:
        """The operator's token."""
        return str(json.loads((self.fleet.store / "admin.json").read_text())["token"])

    def asked(self, party: bare.Party) -> Mapping[str, Any]:
        """Return the work of a party that is asked to train, or fail."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            answer = party.work(self.key)
            assert answer.status == 200, answer
            if answer.json["state"] == "train":
                return dict(answer.json)
            time.sleep(0.02)
        raise AssertionError(f"{party.name} is not asked: {answer.json}\n{self.fleet.story()}")

    def update(self, party: bare.Party, work: Mapping[str, Any], **fields: Any) -> bare.Update:
        """Return a right update, small enough for one chunk."""
        data = fields.pop("data", None) or bare.file_of(self.leaves, {"loss": np.float32(1), "examples": np.float32(8)})
        run = party.call("GET", f"/v1/runs/{self.key}").json
        return bare.Update(party, self.key, work, data, run["chunk_bytes"], **fields)

    def fresh_round(self) -> Round:
        """Finish what is open and return the next round, of which both parties know and which no test has had."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            works = [self.told(party) for party in (self.lyon, self.nice)]
            if all(work["state"] == "train" and work["round"] > self.used for work in works):
                self.used = works[0]["round"]
                lyon, nice = (self.update(p, w) for p, w in zip((self.lyon, self.nice), works, strict=True))
                return Round(self.used, self.key, lyon, nice)
            for party, work in zip((self.lyon, self.nice), works, strict=True):
                if work["state"] == "train" and work["round"] <= self.used:
                    sent = self.update(party, work).send()
                    assert sent.status in (200, 422, 410), sent
            time.sleep(0.02)
        state = {**self.state(), "history": "..."}
        raise AssertionError(f"no round after {self.used}: {works}\n{state}\n{self.fleet.story()[-2000:]}")

    def told(self, party: bare.Party) -> Mapping[str, Any]:
        """Return a party's work, with a new session if the old one is over."""
        answer = party.work(self.key)
        if answer.status != 200:
            assert party.begin().status == 200
            answer = party.work(self.key)
        return dict(answer.json)

    def goes_on(self) -> bool:
        """Whether the coordinator runs and its run is not over."""
        return self.fleet.coordinator.alive and self.state()["state"] in ("training", "waiting")

    def revoke(self, party: bare.Party) -> None:
        """Revoke a party as the operator."""
        self.fleet.admin("POST", f"/v1/admin/clients/{party.client}/revoke")

    def state(self) -> dict[str, Any]:
        """Return the run's status, as the operator sees it."""
        return self.fleet.run()

    def row(self, round: int) -> Mapping[str, Any]:
        """Return what the history says of a round."""
        return next(row for row in self.state()["history"] if row["round"] == round)


def good_leaves() -> dict[str, Any]:
    """Return an update of the app's model."""
    return {
        "params.w": np.float32([0.01, -0.01]),
        "params.b": np.float32(0.02),
        "state.batches": np.float32(1),
    }
