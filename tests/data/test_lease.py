"""One owner at a time; the dead are followed, the living are not."""

import errno
import json
import os
import threading
import time
from pathlib import Path

import pytest

from nanochat.data.lease import Lease


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".x.lock"


def never() -> bool:
    return False


def lease(path: Path, stale: float = 60.0) -> Lease:
    return Lease(path, beat=0.05, stale=stale, look=0.01)


def foreign(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({"token": "abc", "host": "elsewhere", "process": 1, **changes}))


def test_one_at_a_time(path: Path) -> None:
    inside, most = 0, 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal inside, most
        mine = lease(path)
        assert mine.acquire(never)
        with mine:
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.02)
            with lock:
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert most == 1 and not path.exists()


def test_waiting_ends_when_there_is_nothing_to_wait_for(path: Path) -> None:
    first = lease(path)
    assert first.acquire(never)
    with first:
        began = time.monotonic()
        assert not lease(path).acquire(lambda: time.monotonic() - began > 0.1)
        assert path.exists()


def test_signs_of_life_keep_it(path: Path) -> None:
    """The owner works for many times as long as a dead one is waited for."""
    first = lease(path)
    assert first.acquire(never)
    with first:
        began = time.monotonic()
        assert not lease(path, stale=0.3).acquire(lambda: time.monotonic() - began > 1.2)
        assert first.check()


def test_without_signs_of_life_it_is_taken_over(path: Path) -> None:
    """From another host, whose processes cannot be looked at, and whose clock is a day ahead."""
    foreign(path)
    os.utime(path, (time.time() + 86400, time.time() + 86400))
    began = time.monotonic()
    mine = lease(path, stale=0.3)
    assert mine.acquire(never) and time.monotonic() - began >= 0.3
    with mine:
        assert mine.check()
    assert list(path.parent.iterdir()) == []


def test_a_process_of_this_host_that_is_gone_is_not_waited_for(path: Path) -> None:
    first = lease(path)
    assert first.acquire(never)
    content = json.loads(path.read_text())
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    foreign(path, host=content["host"], process=pid)
    began = time.monotonic()
    assert lease(path).acquire(lambda: time.monotonic() - began > 5)
    foreign(path, host="elsewhere", process=pid)  # the same number on another machine is another process
    assert not lease(path).acquire(lambda: time.monotonic() - began > 1)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="a process's state is read from /proc")
def test_a_killed_process_that_nobody_has_buried_is_gone(path: Path) -> None:
    """As in containers whose first process does not wait for orphans."""
    first = lease(path)
    assert first.acquire(never)
    host = json.loads(path.read_text())["host"]
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is still listed
        foreign(path, host=host, process=pid)
        began = time.monotonic()
        assert lease(path).acquire(lambda: time.monotonic() - began > 2)
    finally:
        os.waitpid(pid, 0)


def test_a_lock_that_cannot_be_written_is_not_left(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk the file is made and stays empty: it would keep everybody waiting for a dead owner."""

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("nanochat.data.lease.json.dump", full)
        with pytest.raises(OSError, match="No space"):
            lease(path).acquire(never)
    assert not path.exists()


def test_who_lost_it_knows(path: Path) -> None:
    """A process that was stopped for long: another has the file now, and keeps its lock."""
    first = lease(path)
    assert first.acquire(never)
    with first:
        foreign(path)
        deadline = time.monotonic() + 5
        while first.held() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not first.held() and not first.check()
    assert json.loads(path.read_text())["token"] == "abc"


def test_a_takeover_that_catches_the_wrong_one_puts_it_back(path: Path) -> None:
    """Between the look at a stale lock and its removal another watcher took over."""
    foreign(path, token="new owner")
    lease(path)._remove(json.dumps({"token": "stale one"}))
    assert json.loads(path.read_text())["token"] == "new owner"
    assert [p.name for p in path.parent.iterdir()] == [path.name]
