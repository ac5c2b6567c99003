"""How a party comes to belong to a coordinator: once, by its invitation; from then on its folder says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from koinon.errors import FleetError
from koinon.fleet.participant.connection import Connection, Reach, pinned_authority
from koinon.fleet.participant.keep import Enrolled, Keep
from koinon.fleet.wire.certificates import fingerprint
from koinon.fleet.wire.link import JoinLink
from koinon.fleet.wire.signatures import Kind, digest, encoded, signed_text


def belongs(known: Enrolled, link: JoinLink) -> bool:
    """Return whether a link leads to the coordinator that a folder has enrolled at, as far as the link says."""
    pinned = None if known.authority is None else fingerprint(known.authority.encode("ascii"))
    return link.authority in (None, pinned)


def enrolled_party(name: str, link: JoinLink, reach: Reach, keep: Keep, say: Callable[[str], None]) -> Enrolled:
    """Return where this participant belongs: from its folder, or by its invitation."""
    known = keep.enrolled()
    if known is not None:
        if known.name != name:
            raise FleetError(f"{keep.folder} belongs to {known.name!r}. Join as that, or choose another --dir.")
        if not belongs(known, link):
            raise FleetError(
                f"{keep.folder} belongs to the coordinator at {known.url}, and the join link is one of another authority. Take part there "
                "from another folder (--dir), also if it is the same coordinator with a new authority."
            )
        return replace(known, url=link.url)
    authority = pinned_authority(link, reach, say)
    connection = Connection(replace(reach, url=link.url, authority=authority), say)
    public = encoded(keep.key.public.raw)
    text = signed_text("enrol", digest(link.token.encode()), name, public)
    body = {
        "token": link.token,
        "name": name,
        "kind": Kind.ED25519.value,
        "key": public,
        "signature": encoded(keep.key.sign(text)),
    }
    answer = connection.call("POST", "/v1/enrol", body, signed_in=False)
    connection.close()
    enrolled = Enrolled(link.url, authority, answer["client"], name, answer["coordinator"])
    keep.enrol(enrolled)
    say(f"Enrolled at {link.url} as {name} ({enrolled.client})")
    return enrolled
