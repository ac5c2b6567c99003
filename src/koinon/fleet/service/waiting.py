"""Who is waiting for news: long polls and event streams, woken from any thread, with nothing kept but themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable


class Waiting:
    """Waiters by what they wait for. Use it within one event loop; :meth:`wake` may be called from any thread."""

    def __init__(self) -> None:
        self._waiters: dict[Hashable, set[asyncio.Future[None]]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def begin(self) -> None:
        """Belong to the running event loop from now on."""
        self._loop = asyncio.get_running_loop()

    def wake(self, keys: Iterable[Hashable]) -> None:
        """Wake everybody who waits for one of these; the loop is left alone where nobody does."""
        known = [key for key in keys if key in self._waiters]  # who begins to wait only now looks after that
        if known and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake, known)

    def waiter(self, key: Hashable) -> asyncio.Future[None]:
        """Return what is done when ``key`` is woken. Ask for it before looking whether there is news."""
        future = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(key, set()).add(future)
        return future

    async def wait(self, key: Hashable, future: asyncio.Future[None], seconds: float) -> None:
        """Return when the waiter is woken, or after ``seconds``."""
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await future
        except TimeoutError:
            pass
        finally:
            self.forget(key, future)

    def forget(self, key: Hashable, future: asyncio.Future[None]) -> None:
        """Drop a waiter."""
        waiting = self._waiters.get(key)
        if waiting is not None:
            waiting.discard(future)
            if not waiting:
                del self._waiters[key]

    def _wake(self, keys: list[Hashable]) -> None:
        for key in keys:
            for future in self._waiters.pop(key, ()):
                if not future.done():
                    future.set_result(None)
