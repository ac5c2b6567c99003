"""Who is trusted with what, in the words that a command, a report and a page print."""

from __future__ import annotations


def statement(floor: int, signed_list: bool, holders: int = 1) -> tuple[str, ...]:
    """Return what an encrypted sum protects from, a line each.

    ``signed_list`` says that the key holder knows the clients' keys from a list which the coordinator cannot change.
    Several ``holders`` share each sum, which is experimental.
    """
    crowd = (
        f"The coordinator is shown no update, whatever it does: only sums of at least {floor} clients, one in a round of a run."
        if signed_list
        else "The coordinator can invent clients, so this protects from an honest but curious one only."
    )
    return (
        crowd,
        "The key holder learns who is in a sum and no number of it. It must receive no client's ciphertext: it could open it."
        if holders == 1
        else f"No key holder learns a number: a sum is known only from the shares of all {holders} of them.",
        "The coordinator alone learns the sums.",
        "Coordinator and key holder together learn every update."
        if holders == 1
        else f"Coordinator and all {holders} key holders together learn every update; without one of them, none.",
        f"A sum says something about each client in it; clients that tell the coordinator theirs count among the {floor}.",
        "Two sums over one model that differ by a client are its update: the coordinator says who is in rounds and runs.",
        "A client can spoil a sum, unseen, with numbers that do not fit; a key holder can falsify one.",
        "The coordinator can leave clients out, and falsify the model that it makes of a sum.",
        *(() if holders == 1 else (f"Sums that {holders} key holders share are experimental.",)),
        "This protocol has had no external review.",
    )
