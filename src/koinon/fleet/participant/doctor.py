"""What stands between a party and taking part: every check of ``koinon doctor``, in order, within half a minute."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from koinon.errors import FormatError, StoreError
from koinon.fleet.participant import reach
from koinon.fleet.participant.enrolment import belongs
from koinon.fleet.participant.examination import Answer, Check, Finding, Wrong, examine
from koinon.fleet.participant.keep import Keep, enrolled
from koinon.fleet.participant.reach import Case
from koinon.fleet.wire.offer import Offer
from koinon.fleet.wire.receipts import canonical
from koinon.fleet.wire.signatures import digest, encoded, signed_text
from koinon.identity import versions
from koinon.store.run_directory import difference, short

SECONDS = 29.0
_PROTOCOL = 1
_ANSWER_BYTES = 1 << 20
_FIRST, _MOST, _GROWTH = 64 << 10, 16 << 20, 4  # bytes of a measurement
_ENOUGH_SECONDS = 0.5
_MEASURING_SECONDS = 3.0
_LEAST_RATE = 32 << 10  # slower uploads are ended by the coordinator
_MODELS_ON_DISK = 3  # the model, and what a client keeps from round to round: staged and settled
_NOTES_ON_DISK = 100_000  # bytes: keys, commits and receipts
_MODELS_IN_MEMORY = 4  # measured with plain SGD: 3.9; an optimiser with moments keeps more
_BLOCK = 1 << 14
_OVER = ("finished", "cancelled", "failed")
_SAME_VERSION = "Install the same version of koinon on both sides."
_NEW_LINK = (
    "Ask the operator for a new link (koinon invite DIR). A party that has enrolled with this one needs no other: its "
    "key counts, and --dir says where it is."
)
_LET_PASS = "bodies of 4 MiB must pass, in both directions (nginx: client_max_body_size 8m)."


def diagnose(case: Case) -> Iterator[Finding]:
    """Yield one finding a check, each as soon as it is known."""
    return examine(checks(), case, seconds=SECONDS)


def checks() -> tuple[Check[Case], ...]:
    """Return every check, in order."""
    return (
        *reach.checks(),
        Check("coordinator", "certificate", 3.0, _coordinator),
        Check("invitation", "coordinator", 3.0, _invitation),
        Check("download", "invitation", 4.0, _download),
        Check("upload", "download", 4.0, _upload),
        Check("model transfer", "upload", 1.0, _transfer),
        Check("disk", "invitation", 1.0, _disk),
        Check("memory", "invitation", 1.0, _memory),
        Check("app", "invitation", SECONDS, _app),
    )


def _coordinator(case: Case) -> Answer[Case]:
    status, body = _ask(case, "GET", "/healthz")
    try:
        version = str(json.loads(body)["version"]) if status == 200 else ""
    except (ValueError, KeyError, TypeError):
        version = ""
    if not version:
        raise Wrong(
            f"what answers at {case.link.url} is no koinon coordinator (GET /healthz: {status})",
            "Compare the link's host and port with the operator's. A reverse proxy in front of it must pass every path.",
        )
    own = versions()["koinon"]
    if own is not None and version != own:
        return Answer(
            case,
            f"koinon {version} answers; here is {own}",
            _SAME_VERSION,
        )
    return Answer(case, f"koinon {version} answers")


def _invitation(case: Case) -> Answer[Case]:
    """Ask what the token opens, without using it up; for a party that has enrolled, what its own key opens."""
    known = enrolled(case.folder)
    if known is not None and not belongs(known, case.link):
        raise Wrong(
            f"{case.folder} belongs to the coordinator at {known.url}, and this link is one of another authority",
            "Take part from another folder (--dir), also if it is the same coordinator with a new authority.",
        )
    case = replace(case, authorization=f"Invitation {case.link.token}")
    status, body = _ask(case, "POST", "/v1/probe")
    how = "valid and not used yet"
    if status == 401 and known is not None:
        case = replace(case, authorization=f"Bearer {_session(case)}")
        status, body = _ask(case, "POST", "/v1/probe")
        how = f"used, and the key in {case.folder} is known"
    if status == 404:
        raise Wrong("the coordinator does not know POST /v1/probe of protocol 1", _SAME_VERSION)
    if status != 200:
        raise Wrong(_message(body) or f"the coordinator refuses the link's token ({status})", _NEW_LINK)
    try:
        offer = Offer.read(body)
    except FormatError as error:
        raise Wrong(str(error), _SAME_VERSION) from error
    if _PROTOCOL not in offer.protocol:
        spoken = ", ".join(map(str, offer.protocol))
        raise Wrong(f"the coordinator speaks protocol {spoken}; this koinon speaks {_PROTOCOL}", _SAME_VERSION)
    names = ", ".join(f"{run.name} ({run.state})" for run in offer.runs) or "no run yet"
    over = bool(offer.runs) and all(run.state in _OVER for run in offer.runs)
    fix = (
        "No run goes on any more: who joins gets a result, if there is one. Ask the operator what comes next."
        if over
        else ""
    )
    return Answer(replace(case, runs=offer.runs), f"{how}; protocol {_PROTOCOL}; runs: {names}", fix)


def _session(case: Case) -> str:
    """Begin a session as koinon join does, unless it is at work itself: a new session would end its own."""
    try:
        opened = Keep(case.folder)
    except StoreError as error:
        raise Wrong(
            f"the invitation is used, and {case.folder} with the party's key is in use",
            "If koinon join is at work there, this is as it should be. Stop it to have the rest checked.",
        ) from error
    with closing(opened) as keep:
        known = keep.enrolled()
        client = "" if known is None else known.client
        challenge = _told(case, "/v1/challenge", {"client": client})["challenge"]
        signature = encoded(keep.key.sign(signed_text("session", client, challenge)))
        told = _told(case, "/v1/session", {"client": client, "challenge": challenge, "signature": signature})
        return str(told["token"])


def _told(case: Case, path: str, body: dict[str, str]) -> dict[str, Any]:
    status, answer = _ask(replace(case, authorization=""), "POST", path, body)
    if status != 200:
        raise Wrong(_message(answer) or f"the party's key in {case.folder} is refused ({status})", _NEW_LINK)
    told: dict[str, Any] = json.loads(answer)
    return told


def _download(case: Case) -> Answer[Case]:
    def fetch(connection: http.client.HTTPConnection, count: int, end: float) -> None:
        connection.request("GET", f"{case.url.path}/v1/probe/bytes?count={count}", headers=_authorised(case))
        answer = connection.getresponse()
        _expect_ok(answer)
        left = count
        while left and (piece := answer.read(min(left, _BLOCK))):
            left -= len(piece)
            if time.monotonic() > end:
                raise TimeoutError(f"{count - left:,} of {count:,} bytes")
        if left:
            raise ConnectionError(f"{left:,} of {count:,} bytes did not come")
        answer.read()

    rate = _measured(case, fetch)
    return Answer(replace(case, down=rate), f"{_size(rate)}/s")


def _upload(case: Case) -> Answer[Case]:
    def send(connection: http.client.HTTPConnection, count: int, end: float) -> None:
        with suppress(ConnectionError):  # who refuses a body may answer before all of it is sent
            connection.request("PUT", f"{case.url.path}/v1/probe/bytes", os.urandom(count), _authorised(case))
        answer = connection.getresponse()
        _expect_ok(answer)
        answer.read()

    rate = _measured(case, send)
    return Answer(replace(case, up=rate), f"{_size(rate)}/s")


def _measured(case: Case, transfer: Callable[[http.client.HTTPConnection, int, float], None]) -> float:
    """Return bytes a second, from ever larger transfers until one takes long enough to tell."""
    end, count, rate = time.monotonic() + _MEASURING_SECONDS, _FIRST, 0.0
    begun = time.monotonic()
    try:
        with closing(reach.dial(case, reach.trusting(case), _MEASURING_SECONDS)) as connection:
            while True:
                begun = time.monotonic()
                transfer(connection, count, end)
                took = time.monotonic() - begun
                rate = count / took
                if took >= _ENOUGH_SECONDS or count >= _MOST or begun + (1 + _GROWTH) * took > end:
                    break
                count *= _GROWTH
    except TimeoutError:
        rate = min(rate, count / (time.monotonic() - begun))  # a first, small transfer fits into buffers
    except (OSError, http.client.HTTPException) as error:
        raise Wrong(
            f"a transfer of {_size(count)} breaks off ({type(error).__name__}: {error})",
            f"Something on the way ends longer transfers: {_LET_PASS}",
        ) from error
    if rate < _LEAST_RATE:
        raise Wrong(
            f"{_size(rate)}/s" if rate else f"{_size(count)} take longer than {_MEASURING_SECONDS:g} s",
            f"A coordinator gives up on uploads slower than {_size(_LEAST_RATE)}/s. Use another line, or take part when "
            "this one is free.",
        )
    return rate


def _transfer(case: Case) -> Answer[Case]:
    """Say how long one model takes down and one update up, at the rates just measured."""
    if not _largest(case):
        return Answer(case, "no model yet: it is made when enough parties have joined")
    assert case.down is not None and case.up is not None, "both were measured before"
    lines, late = [], []
    for run in case.runs:
        seconds = run.model_bytes / case.down + run.update_bytes / case.up
        lines.append(f"{run.name}: {_size(run.model_bytes)} down and {_size(run.update_bytes)} up: {_seconds(seconds)}")
        if seconds > run.longest:
            late.append(f"{run.name} ({run.longest:g} s)")
    if late:
        raise Wrong(
            f"one round's transfer is longer than a round may last: {'; '.join(lines)}",
            f"Ask for a longer deadline of {', '.join(late)} (Synchronous(longest=...)) or a smaller update "
            "(Quantise() or Bfloat16() in the channel), or use another line.",
        )
    return Answer(case, "; ".join(lines))


def _disk(case: Case) -> Answer[Case]:
    folder = case.folder.absolute()
    while not folder.exists():
        folder = folder.parent
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        raise Wrong(f"{folder} cannot be written to by this user", "Choose another folder with --dir.")
    free, needed = shutil.disk_usage(folder).free, _MODELS_ON_DISK * _largest(case)
    if free < needed + _NOTES_ON_DISK:
        raise Wrong(
            f"{_size(free)} are free in {folder}, and {_size(needed + _NOTES_ON_DISK)} may be needed ({_MODELS_ON_DISK} models, and "
            "what is noted of every round)",
            "Make room there, or choose another folder with --dir.",
        )
    return Answer(case, f"{_size(free)} are free in {folder}{_may_be_needed(needed)}")


def _memory(case: Case) -> Answer[Case]:
    free, needed = _free_memory(), _MODELS_IN_MEMORY * _largest(case)
    if free is None:
        return Answer(case, f"cannot be read on this system{_may_be_needed(needed)} beside the data")
    if free < needed:
        raise Wrong(
            f"{_size(free)} of memory are free, and {_size(needed)} may be needed beside the data "
            f"({_MODELS_IN_MEMORY} models)",
            "End other programs, raise the container's limit, or use a larger machine.",
        )
    return Answer(case, f"{_size(free)} are free{_may_be_needed(needed)} beside the data")


def _app(case: Case) -> Answer[Case]:
    if case.app is None:
        return Answer(case, "not compared: no app file was given")
    if not case.runs:
        raise Wrong("the coordinator has no run to compare this app with", "Ask the operator to serve one.")
    described = case.app()
    own = digest(canonical(described).encode())
    same = [run.name for run in case.runs if run.app == own]
    if same:
        return Answer(case, f"{own[:16]}... is that of {', '.join(same)}")
    differences = []
    for run in case.runs:
        where, theirs, mine = difference(run.description, described) or ("hash", run.app, own)
        differences.append(f"{run.name} has another {where}: {short(theirs)}, and this app has {short(mine)}")
    raise Wrong("; ".join(differences), "Both sides need the same file, the same --set and the same koinon.")


def _ask(case: Case, method: str, path: str, body: dict[str, str] | None = None) -> tuple[int, bytes]:
    """Return status and body of a small call, made as a participant makes it. Raises Wrong."""
    try:
        with closing(reach.dial(case, reach.trusting(case), 2.5)) as connection:
            sent = None if body is None else json.dumps(body)
            connection.request(method, case.url.path + path, sent, _authorised(case))
            answer = connection.getresponse()
            return answer.status, answer.read(_ANSWER_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise Wrong(
            f"{method} {path} is not answered ({type(error).__name__}: {error})",
            "The coordinator hangs or restarts. Try again; if it stays so, ask its operator to look at its log.",
        ) from error


def _authorised(case: Case) -> dict[str, str]:
    return {"Authorization": case.authorization} if case.authorization else {}


def _expect_ok(answer: http.client.HTTPResponse) -> None:
    if answer.status != 200:
        text = _message(answer.read(_ANSWER_BYTES))
        raise Wrong(
            text or f"the answer is {answer.status} {answer.reason}, and not the coordinator's own",
            "Try again in a minute." if text else f"A proxy or firewall answers for it: {_LET_PASS}",
        )


def _message(body: bytes) -> str | None:
    """Return what a coordinator says is wrong; None for anybody else's words."""
    try:
        found = json.loads(body)["error"]["message"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if isinstance(found, str) else None


def _largest(case: Case) -> int:
    return max((max(run.model_bytes, run.update_bytes) for run in case.runs), default=0)


def _may_be_needed(count: int) -> str:
    return f"; {_size(count)} may be needed" if count else "; no model yet says how much is needed"


def _free_memory() -> int | None:
    """Return the bytes a process may still take: what Linux says is available, and less in a limited container."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None
    try:
        group = Path("/sys/fs/cgroup")
        limit, used = ((group / name).read_text(encoding="ascii") for name in ("memory.max", "memory.current"))
        return min(free, max(0, int(limit) - int(used)))
    except (OSError, ValueError):  # no control group, or "max": no limit
        return free


def _size(count: float) -> str:
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} bytes"


def _seconds(seconds: float) -> str:
    if seconds < 0.01:
        return "no time"
    return f"{seconds:.2g} s" if seconds < 99 else f"{seconds / 60:.0f} minutes"
