"""Makes one process odd, in a place that no file or socket shows. Python imports this at its start when it is on its path.

``ODD=mute``: a participant sends its masked updates and never helps to open their sum. ``ODD=lying``: one tells others that it
agrees to the survivors under codes that are wrong. ``ODD=unwilling``: one sends its masked updates and says that it will not help
to open their sum. ``ODD=before`` or ``after``: a coordinator kills itself with -9 just before or after it writes that a stage is void.
"""

import os
import signal
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.util import find_spec

_ODD = os.environ.get("ODD", "")
_MODULES = {
    "mute": "koinon.fleet.participant.participant",
    "unwilling": "koinon.fleet.participant.participant",
    "lying": "koinon.privacy.secure_sum.keys",
    "before": "koinon.fleet.coordinator.ledger",
    "after": "koinon.fleet.coordinator.ledger",
}


def _change(module) -> None:
    if _ODD == "mute":
        module.SecureSums.open = lambda self, place, still: None
        sys.modules[module.Exchange.__module__]._WAIT_SECONDS = 1  # it is heard of soon
        return
    if _ODD == "unwilling":

        def refused(self, place, still) -> None:
            raise module.KoinonError("I will not.")

        module.SecureSums.open = refused
        return
    if _ODD == "lying":
        code = module.StandingKey.code

        def wrong(self, cohort, role, sender, receiver, text) -> bytes:
            own = cohort.signed[sender].keys.standing == self.pair.public
            return bytes(module.CODE_BYTES) if own else code(self, cohort, role, sender, receiver, text)

        module.StandingKey.code = wrong
        return
    write = module.Ledger.write_stage

    def dying(self, round, purpose, row) -> None:
        if row.void is None:
            write(self, round, purpose, row)
            return
        if _ODD == "after":
            write(self, round, purpose, row)
        os.kill(os.getpid(), signal.SIGKILL)

    module.Ledger.write_stage = dying


class _Odd(MetaPathFinder, Loader):
    def find_spec(self, name, path, target=None):
        if name != _MODULES.get(_ODD):
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        own = spec.loader

        class Changed(type(own)):
            def exec_module(self, module) -> None:
                super().exec_module(module)
                _change(module)

        spec.loader = Changed(own.name, own.path)
        return spec


if _ODD:
    sys.meta_path.insert(0, _Odd())
