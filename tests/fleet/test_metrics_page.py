"""What Prometheus is told: it takes no two figures under the same labels."""

import re
from collections import Counter
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from koinon.fleet.service.metrics_page import Collector


def party(client: str, standing: str, received: int) -> dict[str, Any]:
    return {"client": client, "name": "lyon", "standing": standing, "bytes_received": received, "bytes_sent": 2}


def test_a_party_that_came_back_under_its_name_is_another_line() -> None:
    clients = [party("c-1", "revoked", 5), party("c-2", "idle", 7)]
    history = [{"round": 3, "cohort": 1, "seconds": 0.5, "refused": {}, "lost": {}, "loss": 0.25, "accuracy": None}]
    run = {"name": "heart", "round": 3, "state": "training", "history": history, "clients": clients}
    registry = CollectorRegistry()
    registry.register(Collector({"runs": [run]}))
    lines = [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]
    assert max(Counter(line.rpartition(" ")[0] for line in lines).values()) == 1
    assert 'koinon_client_received_bytes{client="c-2",name="lyon",run="heart"} 7.0' in lines
    assert 'koinon_figure{figure="loss",run="heart"} 0.25' in lines
    assert not [line for line in lines if re.search("accuracy|refused", line)]
