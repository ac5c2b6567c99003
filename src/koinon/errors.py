"""Every error koinon raises on purpose, in one tree.

    KoinonError
    ├── CompositionError      parts of an algorithm that cannot be combined
    ├── ConfigurationError    a field, a flag or an app file asks for something that does not exist
    ├── DataError             a client's data cannot be trained on
    ├── ModelError            a model does not fit its data or cannot travel to a worker
    ├── UnsupportedError      an engine or a runtime cannot do what the algorithm needs
    ├── ClientError           a client failed; carries the client and the stage
    ├── DivergedError         every client of a round was refused
    ├── WorkerError           a worker process died or could not start
    ├── StoreError            a run directory cannot be read, written or locked
    ├── FormatError           bytes from outside are not what they should be
    ├── ProtocolError         a private sum would not be one: a party of it refuses to go on
    └── FleetError            coordinator and participant cannot, or will not, work together

A message says what was asked, what was found and what to do.
"""

from __future__ import annotations


class KoinonError(Exception):
    """The root: catch this to catch every error koinon raises on purpose."""


class CompositionError(KoinonError):
    """Parts of an algorithm that cannot be combined."""


class ConfigurationError(KoinonError):
    """A field, a flag or an app file asks for something that does not exist."""


class DataError(KoinonError):
    """A client's data cannot be trained on."""


class ModelError(KoinonError):
    """A model does not fit its data or cannot travel to a worker."""


class UnsupportedError(KoinonError):
    """An engine or a runtime cannot do what the algorithm needs."""


class ClientError(KoinonError):
    """A client failed. ``client`` is its name, ``stage`` the step of its round."""

    def __init__(self, message: str, *, client: str, stage: str) -> None:
        super().__init__(message)
        self.client = client
        self.stage = stage

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_client_error, (str(self), self.client, self.stage))


class DivergedError(KoinonError):
    """Every client of a round was refused, so there is nothing to aggregate."""


class WorkerError(KoinonError):
    """A worker process died or could not start."""


class StoreError(KoinonError):
    """A run directory cannot be read, written or locked."""


class FormatError(KoinonError):
    """Bytes from outside are not what they should be."""


class ProtocolError(KoinonError):
    """A private sum would not be one: a party of it refuses to go on."""


class FleetError(KoinonError):
    """Coordinator and participant cannot, or will not, work together."""


def _rebuild_client_error(message: str, client: str, stage: str) -> ClientError:
    return ClientError(message, client=client, stage=stage)
