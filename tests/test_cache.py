"""The on-disk cache: what is stored comes back, what others could have written never does."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import time

import pytest

from torch_aio import cache

KEY = hashlib.blake2b(b"kernel").hexdigest()
OTHER = hashlib.blake2b(b"other").hexdigest()


@pytest.fixture
def folder(tmp_path, notices):
    return tmp_path / "kernels"


@pytest.fixture
def store(folder):
    return cache.DiskCache(folder)


def test_what_is_put_comes_back_in_another_instance(store, folder):
    store.put(KEY, b"code" * 1000)
    assert cache.DiskCache(folder).get(KEY) == b"code" * 1000
    assert store.get(OTHER) is None
    store.put(KEY, b"")
    assert store.get(KEY) == b""


def test_many_keys_at_once(store):
    keys = [f"{n:040x}" for n in range(20)]
    for n, key in enumerate(keys[::2]):
        store.put(key, bytes([n]))
    assert store.get_many(keys) == {key: bytes([n]) for n, key in enumerate(keys[::2])}


@pytest.mark.parametrize("key", ["", "../x", "ABC", "k/y", "tmp-1"])
def test_a_key_is_a_hex_digest(store, key):
    with pytest.raises(ValueError, match="hex digest"):
        store.get(key)


def test_folder_and_entries_belong_to_the_user_alone(store, folder):
    store.put(KEY, b"x")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / KEY).stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir()] == [KEY]


def _flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "a flipped bit": _flip,
    "half of it": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "nothing": lambda path: path.write_bytes(b""),
    "something else": lambda path: path.write_bytes(b"\x7fELF" * 100),
    "writable by others": lambda path: path.chmod(0o606),
    "unreadable": lambda path: (path.unlink(), path.symlink_to("/etc/passwd")),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_absent_and_replaced(store, folder, damage):
    store.put(KEY, b"good" * 100)
    DAMAGE[damage](folder / KEY)
    assert store.get(KEY) is None
    store.put(KEY, b"new")
    assert store.get(KEY) == b"new"


def test_an_entry_under_another_key_is_absent(store, folder):
    """The checksum covers the key: a renamed kernel is not run in another's place."""
    store.put(KEY, b"good")
    (folder / KEY).rename(folder / OTHER)
    assert store.get(OTHER) is None


def test_a_folder_that_others_can_write_is_refused_with_one_notice(folder, notices):
    folder.mkdir()
    folder.chmod(0o777)
    for _ in range(2):
        store = cache.DiskCache(folder)
        store.put(KEY, b"x")
        assert store.get(KEY) is None
        assert store.size() == 0
    assert [r.getMessage() for r in notices.records] == [
        f"no kernels are kept on disk: {folder} can be written by others (AIO_CACHE_DIR)"
    ]
    assert not list(folder.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_another_user_owns_is_refused(store, folder, notices):
    store.put(KEY, b"x")
    os.chown(folder / KEY, 12345, -1)
    assert store.get(KEY) is None
    os.chown(folder, 12345, -1)
    assert cache.DiskCache(folder).get(KEY) is None
    assert "belongs to another user" in notices.text


def test_a_file_in_the_folders_place_leaves_us_without_a_cache(folder, notices):
    folder.write_text("not a folder")
    store = cache.DiskCache(folder)
    store.put(KEY, b"x")
    assert store.get(KEY) is None
    assert len(notices.records) == 1


@pytest.mark.parametrize("failing", ["open", "replace"])
def test_a_folder_that_cannot_be_written_is_read_and_one_notice_given(
    store, folder, notices, monkeypatch, failing
):
    store.put(KEY, b"x")
    real = getattr(os, failing)

    def refuse(path, *args, **kwargs):
        if str(path).startswith(".tmp-"):
            raise OSError(30, "Read-only file system")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, failing, refuse)
    store.put(OTHER, b"y")
    store.put(OTHER, b"z")
    assert store.get(KEY) == b"x"
    assert store.get(OTHER) is None
    assert [r.getMessage() for r in notices.records] == [
        f"no more kernels are kept in {folder}: Read-only file system"
    ]
    assert [path.name for path in folder.iterdir()] == [KEY]


def test_a_folder_removed_meanwhile_is_made_anew(store, folder):
    store.put(KEY, b"x")
    (folder / KEY).unlink()
    folder.rmdir()
    assert store.get(KEY) is None
    store.put(KEY, b"y")
    assert store.get(KEY) == b"y"


def test_the_least_recently_used_leave_when_it_is_full(folder):
    store = cache.DiskCache(folder, limit=100_000)
    keys = [f"{n:040x}" for n in range(20)]
    for age, key in enumerate(reversed(keys)):
        store.put(key, bytes(9_000))
        if (folder / key).exists():
            os.utime(folder / key, (time.time() - age * 60,) * 2)
    assert store.size() <= 100_000 + 100_000 // 16 + 9_100
    assert store.get(keys[-1]) is not None
    store.put(KEY, bytes(200_000))
    assert store.get(KEY) is None


def test_a_stranger_file_is_left_alone_and_a_stale_temporary_is_not(store, folder):
    store.put(KEY, b"x")
    (folder / "README").write_text("mine")
    (folder / ".tmp-1-1").write_text("half")
    os.utime(folder / ".tmp-1-1", (0, 0))
    cache.DiskCache(folder).put(OTHER, b"y")
    assert {path.name for path in folder.iterdir()} == {KEY, OTHER, "README"}
    assert store.clear() == 2
    assert [path.name for path in folder.iterdir()] == ["README"]


def test_threads_that_write_one_key_never_show_half_of_it(store):
    contents = [bytes([n]) * 50_000 for n in range(4)]
    store.put(KEY, contents[0])
    seen = set()

    def write(content):
        for _ in range(20):
            store.put(KEY, content)
            seen.add(store.get(KEY))

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert seen <= set(contents)


def test_a_look_takes_less_than_100_us(store):
    store.put(KEY, bytes(10_000))
    best = 1.0
    for _ in range(50):
        start = time.perf_counter()
        store.get(KEY)
        best = min(best, time.perf_counter() - start)
    assert best < 100e-6


def test_the_default_folder_is_what_aio_cache_dir_says(tmp_path, monkeypatch):
    monkeypatch.setenv("AIO_CACHE_DIR", str(tmp_path / "a"))
    first = cache.default()
    assert first.folder == tmp_path / "a"
    assert cache.default() is first
