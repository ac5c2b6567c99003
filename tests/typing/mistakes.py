"""Mistakes that a type checker must see. An ignore that is not needed is an error, so each is checked.

Checked by test_typing.py; never run.
"""

import koinon as kn

kn.fedagv()  # type: ignore[attr-defined]
kn.fedavg(epoch=2)  # type: ignore[call-arg]
kn.fedavg(kn.Clip(1.0))  # type: ignore[arg-type]
kn.fedavg(channel=(kn.sgd(0.1),))  # type: ignore[arg-type]
kn.fedavg(cohort="all")  # type: ignore[arg-type]
kn.Stop(100)  # type: ignore[call-arg]
kn.Stop(target="accuracy")  # type: ignore[arg-type]
kn.fit(None, {}, rounds=3)  # type: ignore[call-arg]
kn.App(clients={})  # type: ignore[call-arg]
kn.Stop().rounds = 5  # type: ignore[misc]
