"""The store of results: least recently used first, counted, safe for threads."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from boundflow_core.cache import BoundCache, CacheKey, digest, fingerprint
from boundflow_core.errors import OptionError
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.types import DType


def key(name: str) -> CacheKey:
    return CacheKey(program=name, stage="region", method="m")


def test_least_recently_used_goes_first() -> None:
    cache = BoundCache(capacity=100)
    cache.put(key("a"), "A", 40)
    cache.put(key("b"), "B", 40)
    assert cache.get(key("a")) == "A"
    cache.put(key("c"), "C", 40)
    assert cache.get(key("b")) is None
    assert (cache.get(key("a")), cache.get(key("c"))) == ("A", "C")
    assert (cache.stats.hits, cache.stats.misses, cache.stats.evictions, cache.stats.bytes) == (3, 1, 1, 80)
    assert len(cache) == 2
    cache.clear()
    assert (len(cache), cache.stats.bytes) == (0, 0)


def test_too_large_a_value_is_not_kept_and_evicts_nothing() -> None:
    cache = BoundCache(capacity=100)
    cache.put(key("a"), "A", 100)
    cache.put(key("b"), "B", 101)
    assert (cache.get(key("a")), cache.get(key("b"))) == ("A", None)
    nothing = BoundCache(capacity=0)
    nothing.put(key("a"), "A", 1)
    assert len(nothing) == 0
    with pytest.raises(OptionError):
        BoundCache(capacity=-1)


def test_a_key_stored_twice_counts_once() -> None:
    cache = BoundCache(capacity=100)
    cache.put(key("a"), "old", 60)
    cache.put(key("a"), "new", 50)
    assert (cache.get(key("a")), cache.stats.bytes, cache.stats.evictions) == ("new", 50, 0)


def test_every_field_tells_keys_apart() -> None:
    one = key("a")
    for name in ("program", "stage", "method", "region", "spec", "split", "weights", "layout"):
        assert replace(one, **{name: "other"}) != one
    assert replace(one, extra=("x",)) != one


def test_many_threads() -> None:
    cache = BoundCache(capacity=500)

    def work(seed: int) -> None:
        numbers = np.random.default_rng(seed)
        for _ in range(500):
            name = str(numbers.integers(20))
            found = cache.get(key(name))
            assert found in (None, name)
            cache.put(key(name), name, int(numbers.integers(1, 100)))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.stats.hits + cache.stats.misses == 2000
    assert cache.stats.bytes == sum(size for _, size in cache._entries.values()) <= 500


def test_digests_tell_contents_types_shapes_and_names_apart() -> None:
    x = np.arange(6.0).reshape(2, 3)
    others = [
        {"x": x.reshape(3, 2)}, {"x": x.astype(np.float32)}, {"y": x}, {"x": x, "y": x}, {"x": -x}, {"x": x.T},
        {"x": np.array(0.0)}, {"x": np.array(-0.0)}, {"x": np.zeros((0, 3))}, {"x": np.zeros((3, 0))},
    ]  # fmt: skip
    digests = [digest({"x": x}), *map(digest, others)]
    assert len(set(digests)) == len(digests)
    assert digest({"x": np.asfortranarray(x)}) == digest({"x": np.repeat(x, 2, 0)[::2]}) == digests[0]
    assert digest({}) == ""


def test_fingerprints_tell_programs_apart() -> None:
    def program(weight: float = 1.0, relation: str = "lt", dtype: DType = DType.FLOAT64, swap: bool = False) -> str:
        b = Builder(dtype)
        x, y = b.input("x", (3,)), b.input("y", (3,))
        out = b.where(b.compare(x, y, relation), b.mul(x, np.full(3, weight)), b.sub(y, x) if swap else b.sub(x, y))
        return fingerprint(b.finish({"out": out}))

    made = [program(), program(2.0), program(relation="le"), program(dtype=DType.FLOAT32), program(swap=True)]
    assert len(set(made)) == len(made)
    assert program() == made[0]
