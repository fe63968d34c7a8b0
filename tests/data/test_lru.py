"""The cache keeps to its budget and to the order of use."""

from nanochat.data.lru import LRU


def test_least_recently_used_leaves_first() -> None:
    cache: LRU[str, int] = LRU(budget=10, keep=1)
    cache.put("a", 1, 4)
    cache.put("b", 2, 4)
    assert cache.get("a") == 1
    cache.put("c", 3, 4)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)


def test_replacing_a_value_replaces_its_cost() -> None:
    cache: LRU[str, int] = LRU(budget=10, keep=1)
    for _ in range(5):
        cache.put("a", 1, 6)
    cache.put("b", 2, 4)
    assert (cache.get("a"), cache.get("b")) == (1, 2)


def test_some_stay_however_dear() -> None:
    cache: LRU[int, int] = LRU(budget=10, keep=2)
    for key in range(5):
        cache.put(key, key, 100)
    assert len(cache) == 2
    assert (cache.get(3), cache.get(4)) == (3, 4)
