"""Facts reach the store in order and wait in bounded memory while it refuses."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, cast

from bot.services.recorder import Fact, FactKind, Recorder
from bot.storage.store import Store, StoreCorrupt, StoreError, StoreUnavailable


class Moody:
    """A store that only remembers what was written, and refuses on demand."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.refusal: StoreError | None = None

    def fact(self, name: str, kind: FactKind = FactKind.KEEP) -> Fact:
        async def write(_: Store) -> None:
            if self.refusal is not None:
                raise self.refusal
            self.written.append(name)

        return Fact(kind, name, write)


def recorder(store: Moody, **more: Any) -> Recorder:
    return Recorder(cast(Store, store), **more)


async def drain_now(target: Recorder) -> None:
    target._next_try_s = 0.0
    await target.drain()


async def test_order_is_kept_while_and_after_the_store_refuses() -> None:
    store = Moody()
    target = recorder(store)
    assert await target.put(store.fact("a"))
    store.refusal = StoreUnavailable("locked")
    assert not await target.put(store.fact("b"))
    store.refusal = None
    assert not await target.put(store.fact("c")), "c must not overtake b"
    await drain_now(target)
    assert store.written == ["a", "b", "c"]
    assert target.waiting == 0
    assert target.failing_s == 0


async def test_a_write_cut_off_in_the_middle_is_not_forgotten() -> None:
    store = Moody()
    target = recorder(store)

    async def hang(_: Store) -> None:
        await asyncio.sleep(60)

    async def again(_: Store) -> None:
        store.written.append("cut off")

    writes = iter((hang, again))

    async def write(given: Store) -> None:
        await next(writes)(given)

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.01):
            await target.put(Fact(FactKind.KEEP, "cut off", write))
    await target.put(store.fact("later"))
    await drain_now(target)
    assert store.written == ["cut off", "later"]


async def test_memory_is_bounded_and_samples_go_first() -> None:
    store = Moody()
    store.refusal = StoreUnavailable("full")
    target = recorder(store, max_waiting=3)
    await target.put(store.fact("flip 1"))
    await target.put(store.fact("sample 1", FactKind.SAMPLE))
    await target.put(store.fact("sample 2", FactKind.SAMPLE))
    await target.put(store.fact("flip 2"))
    await target.put(store.fact("flip 3"))
    store.refusal = None
    await drain_now(target)
    assert store.written == ["flip 1", "flip 2", "flip 3"]
    assert target.dropped == 2


async def test_a_fact_that_can_never_be_stored_is_counted_and_not_in_the_way() -> None:
    store = Moody()
    target = recorder(store)
    store.refusal = StoreError("refused", retriable=False)
    assert await target.put(store.fact("bad"))
    store.refusal = None
    assert await target.put(store.fact("good"))
    assert target.refused == 1
    assert store.written == ["good"]


async def test_a_corrupt_store_is_replaced_and_gets_what_is_known_first() -> None:
    store = Moody()

    async def recover() -> list[Fact]:
        store.refusal = None
        return [store.fact("what was known")]

    target = recorder(store, recover=recover)
    store.refusal = StoreCorrupt("a hole")
    await target.put(store.fact("new"))
    await drain_now(target)
    assert store.written == ["what was known", "new"]


async def test_failing_time_counts_until_the_queue_is_empty() -> None:
    store = Moody()
    store.refusal = StoreUnavailable("io")
    target = recorder(store)
    await target.put(store.fact("a"))
    assert target.failing_s > 0
    assert target.problem is store.refusal
    await drain_now(target)
    assert target.waiting == 1
    store.refusal = None
    await drain_now(target)
    assert target.problem is None
