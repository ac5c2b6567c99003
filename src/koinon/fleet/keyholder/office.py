"""A key holder's folder: its keys, made once, and what it has decrypted, written down before anybody hears of it.

A sum is blinded by the coordinator: all that is seen here is how many it counts. Of each round of a run one is let out. A number that could not be decrypted is over, and the round may be asked
for under a later one; once a sum of it has been let out, no other is: two that differ by one client are its update.
One of several key holders cannot tell a sum from noise, so each is asked first how many clients it counts; that
says nothing about their numbers, and the round may be asked for under a later number until a share has been let out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Self

from koinon.errors import ConfigurationError, FleetError, FormatError, StoreError
from koinon.fleet.wire.encrypted_terms import ATTEMPTS
from koinon.fleet.wire.refusal import Refusal
from koinon.fleet.wire.signatures import PublicKey as ClientKey
from koinon.fleet.wire.signatures import forget_partial, write_secret
from koinon.privacy.encrypted_sum.holder import Answered, KeyHolder, Request
from koinon.privacy.encrypted_sum.keys import PublicKey, SecretKey
from koinon.privacy.encrypted_sum.shares import Share
from koinon.privacy.secure_sum.roster import Roster

SECRET, PUBLIC = "secret.key", "public.key"
_ANSWERED, _RELEASED = "answered.json", "released.json"
_RESTORE = (
    "Restore the whole folder, if there is a copy from after the last sum: an older one would let out second sums. Else make "
    "new keys in another folder."
)


class Office:
    """Answers one request after the other. ``roster`` says which clients there are; without it every key is one."""

    def __init__(
        self, folder: Path, secret: SecretKey, roster: Roster | None, state: tuple[Answered, dict[str, int]],
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._folder, self._secret, self.roster, self._say = folder, secret, roster, say
        self._answered, self._released = state  # the latter: run -> the last number whose sum was let out

    @classmethod
    def open(
        cls, folder: Path, floor: int, roster: Roster | None, say: Callable[[str], None] = lambda line: None
    ) -> Self:
        """Return the office of a folder, its keys made with this floor if it has none; ``say`` is told of every answer.

        Raises ConfigurationError for keys of another floor, StoreError, FormatError for a folder that is not whole.
        """
        forget_partial(folder)
        if not (folder / SECRET).exists():
            _write(folder / _RELEASED, b"{}")
            _write(folder / _ANSWERED, Answered().to_bytes())
            secret = SecretKey.generate(floor)
            _write(folder / PUBLIC, secret.public.to_bytes())
            _write(folder / SECRET, secret.to_bytes())
        secret = SecretKey.from_bytes(_read(folder / SECRET))
        if secret.public.floor != floor:
            raise ConfigurationError(
                f"The keys in {folder} decrypt sums of at least {secret.public.floor} clients, and --floor says {floor}. The floor is "
                "part of the key: leave --floor as it was, or make new keys in another folder."
            )
        return cls(folder, secret, roster, (Answered.from_bytes(_read(folder / _ANSWERED)), _released(folder)), say)

    @property
    def public(self) -> PublicKey:
        """What everybody may have, and the clients pin."""
        return self._secret.public

    def answer(self, body: bytes) -> bytes:
        """Return this key holder's share of the sum that a request asks for; always the same of the same request.

        Raises FormatError for what is no request, and Refusal: ``spoiled`` where this number is over without a sum, so that
        the round is to be asked for under a later one, ``refused`` where somebody has to look into it.
        """
        request = Request.from_bytes(body)
        share = self._decided(request)
        run, number, others = request.round.run, request.round.number, len(request.round.keys) - 1
        if self._released.get(run) != number:
            released = {**self._released, run: number}
            _write(self._folder / _RELEASED, json.dumps(released, sort_keys=True).encode())
            self._released = released
            did = f"Answered with a share, one of {others + 1} (experimental)," if others else "Decrypted"
            self._say(f"{did} round {number // ATTEMPTS} of {run!r}: the sum of {len(request.pads)} clients")
        return share.to_bytes()

    def count(self, body: bytes) -> bytes:
        """Return, of several key holders, this one's share of how many clients are in a sum; raises what :meth:`answer` does."""
        return self._decided(Request.from_bytes(body)).count.to_bytes()

    def _decided(self, request: Request) -> Share:
        """Return the share that a request is for, once it is written down that this number is this request's."""
        run, number = request.round.run, request.round.number
        self._refuse_a_second_sum(run, number)
        over = False

        def keep(answered: Answered) -> None:
            nonlocal over
            if answered != self._answered:
                _write(self._folder / _ANSWERED, answered.to_bytes())
            self._answered, over = answered, True

        latest, known = self._answered.rounds.get(run, (-1, ""))
        over = number == latest and request.digest != known and self._released.get(run) != number
        try:
            return KeyHolder(secret=self._secret, verify=self._verify).share(request, self._answered, keep)
        except FormatError:
            raise
        except FleetError as error:
            self._say(f"Refused, round {number // ATTEMPTS} of {run!r}: {error}")
            raise Refusal(409, "spoiled" if over else "refused", str(error)) from error

    def _refuse_a_second_sum(self, run: str, number: int) -> None:
        released = self._released.get(run)
        if released is not None and number != released and number // ATTEMPTS <= released // ATTEMPTS:
            raise Refusal(
                409,
                "refused",
                f"Round {number // ATTEMPTS} of {run!r} will not be decrypted: a sum of round {released // ATTEMPTS} was let out, "
                "and there is one of each.",
            )

    def _verify(self, client: str, text: bytes, signature: bytes) -> bool:
        """Return whether a text is signed by a client, whose name is its key."""
        if self.roster is not None and client not in self.roster.members.values():
            return False
        try:
            key = ClientKey.parse(client)
        except FormatError:
            return False
        return key.text == client and key.signed(signature, text)


def _released(folder: Path) -> dict[str, int]:
    """Return the last number of each run whose sum was let out."""
    try:
        return {str(run): int(number) for run, number in json.loads(_read(folder / _RELEASED)).items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise StoreError(f"{folder / _RELEASED} cannot be read ({error!r}). {_RESTORE}") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}). {_RESTORE}") from error


def _write(path: Path, data: bytes) -> None:
    """Write a file that survives a power cut, under its name, when this returns."""
    try:
        write_secret(path, data)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}. Nothing is decrypted meanwhile.") from error
