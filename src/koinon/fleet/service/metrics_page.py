"""The coordinator's figures for Prometheus."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from koinon.fleet.service.house import House


def routes(house: House, look: Callable[[], dict[str, Any]]) -> list[Route]:
    """Return ``GET /metrics``; ``look`` returns the status."""

    async def answer(request: Request) -> Response:
        house.operated(request)
        status = await asyncio.to_thread(look)
        registry = CollectorRegistry()
        registry.register(Collector(status))
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return [Route("/metrics", answer)]


class Collector:
    """One status as metric families."""

    def __init__(self, status: dict[str, Any]) -> None:
        self._status = status

    def collect(self) -> list[Metric]:
        """Return the families."""
        rounds = GaugeMetricFamily("koinon_round", "Finished rounds.", labels=["run"])
        figures = GaugeMetricFamily("koinon_figure", "A figure of the last finished round.", labels=["run", "figure"])
        states = GaugeMetricFamily("koinon_run_state", "1 for the state that a run is in.", labels=["run", "state"])
        clients = GaugeMetricFamily("koinon_clients", "Clients by standing.", labels=["run", "standing"])
        party = ["run", "client", "name"]  # two may bear a name, one after the other
        received = GaugeMetricFamily("koinon_client_received_bytes", "Update bytes received.", labels=party)
        sent = GaugeMetricFamily("koinon_client_sent_bytes", "Model bytes sent.", labels=party)
        for run in self._status["runs"]:
            name = run["name"]
            rounds.add_metric([name], run["round"])
            states.add_metric([name, run["state"]], 1)
            last = run["history"][-1] if run["history"] else {}
            for figure, value in last.items():
                if isinstance(value, float):
                    figures.add_metric([name, figure], value)
            standings = [client["standing"] for client in run["clients"]]
            for standing in sorted(set(standings)):
                clients.add_metric([name, standing], standings.count(standing))
            for client in run["clients"]:
                party = [name, client["client"], client["name"]]
                received.add_metric(party, client["bytes_received"])
                sent.add_metric(party, client["bytes_sent"])
        return [rounds, figures, states, clients, received, sent]
