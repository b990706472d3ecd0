"""Failures: each is told in a sentence with the remedy, and what was stored before stays."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from database_kinds import on_sqlite
from sqlalchemy.exc import OperationalError
from storage_samples import measurement

from archsearch.errors import StorageError
from archsearch.storage import MetricValue, NewTrial, Store, TrialQuery, current, upgrade
from archsearch.storage.engine import open_engine
from archsearch.storage.failures import storage_errors

not_as_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
MODES = pytest.mark.parametrize("read_only", [False, True], ids=["write", "read"])


@contextmanager
def _mode(path: Path, mode: int) -> Iterator[None]:
    before = path.stat().st_mode
    path.chmod(mode)
    try:
        yield
    finally:
        path.chmod(before)


def _told(url: str, *, read_only: bool = False) -> str:
    with pytest.raises(StorageError) as caught:
        Store.open(url, read_only=read_only)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize("other", [False, True], ids=["removed", "replaced"])
@on_sqlite
def test_a_file_that_goes_away_while_it_is_written_to_is_told(url: str, tmp_path: Path, other: bool) -> None:
    path = tmp_path / "searches.db"
    with Store.open(url) as store:
        search = store.create_search("first", {}, [])
        kept = {file: file.rename(tmp_path / f"kept-{file.name}") for file in tmp_path.glob("searches.db*")}
        if other:
            with Store.open(url) as second:
                second.create_search("second", {}, [])
        with pytest.raises(StorageError, match="replaced by another file" if other else "was removed"):
            store.heartbeat(search)
        assert path.exists() == other
    for file in tmp_path.glob("searches.db*"):
        file.unlink()
    for file, moved in kept.items():
        moved.rename(file)
    with Store.open(url) as store:
        store.heartbeat(store.search("first").id)


@MODES
@on_sqlite
def test_file_that_is_no_database(url: str, tmp_path: Path, read_only: bool) -> None:
    text = "not a database at all\n" * 100
    (tmp_path / "searches.db").write_text(text)
    told = _told(url, read_only=read_only)
    assert told.startswith(url)
    assert "the file is not a SQLite database: name another database with --storage or ARCHSEARCH_STORAGE" in told
    assert (tmp_path / "searches.db").read_text() == text
    with pytest.raises(StorageError, match="not a SQLite database"):
        upgrade(url)
    with pytest.raises(StorageError, match="not a SQLite database"):
        current(url)


def test_directory_that_does_not_exist(tmp_path: Path) -> None:
    told = _told(f"sqlite:///{tmp_path}/none/a.db")
    assert f"there is no directory {tmp_path}/none: make it, or" in told
    assert not (tmp_path / "none").exists()


@MODES
def test_path_that_is_a_directory(tmp_path: Path, read_only: bool) -> None:
    assert "is a directory: add a file name" in _told(f"sqlite:///{tmp_path}", read_only=read_only)


@on_sqlite
def test_place_without_write_permission(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert f"{tmp_path} is not writable: give write permission, or" in _told(url)
    assert not (tmp_path / "searches.db").exists()


@not_as_root
@on_sqlite
def test_directory_without_write_permission(tmp_path: Path, url: str) -> None:
    with _mode(tmp_path, 0o500):
        assert f"{tmp_path} is not writable" in _told(url)


@not_as_root
@on_sqlite
def test_file_without_write_permission_can_be_read(tmp_path: Path, url: str, store: Store) -> None:
    store.create_search("first", {}, [])
    store.close()
    with _mode(tmp_path / "searches.db", 0o400), _mode(tmp_path, 0o500):
        assert "searches.db is not writable" in _told(url)
        with Store.open(url, read_only=True) as reader:
            assert [record.name for record in reader.searches()] == ["first"]


def test_reader_cannot_write(url: str, store: Store, search_id: int) -> None:
    with Store.open(url, read_only=True) as reader:
        assert reader.search("first").id == search_id
        with pytest.raises(StorageError, match=r"it is read-only: give write permission, or"):
            reader.heartbeat(search_id)


@pytest.fixture
def locked(url: str, store: Store, search_id: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a database that another process keeps locked for writing."""
    monkeypatch.setattr("archsearch.storage.engine.BUSY_SECONDS", 0.05)
    with closing(sqlite3.connect(tmp_path / "searches.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("UPDATE search SET reason = 'held'")
        yield url
        other.execute("ROLLBACK")


@on_sqlite
def test_locked_database_is_told_after_a_wait(locked: str) -> None:
    with Store.open(locked) as store, pytest.raises(StorageError, match="another process has kept it locked"):
        store.create_search("second", {}, [])


@MODES
@on_sqlite
def test_reading_needs_no_lock(locked: str, read_only: bool) -> None:
    with Store.open(locked, read_only=read_only) as store:
        assert store.search("first").reason == ""
        assert len(store.searches_frame()) == 1


def test_table_that_is_gone(url: str, store: Store) -> None:
    engine = open_engine(url)
    with engine.begin() as other:
        other.exec_driver_sql("DROP TABLE plugin_version")
    engine.dispose()
    with pytest.raises(StorageError, match="a table is missing: put back a copy"):
        store.plugins(1)


@on_sqlite
def test_damaged_database(url: str, store: Store, search_id: int, tmp_path: Path) -> None:
    for number in range(200):
        store.create_search(f"search-{number}", {"padding": "x" * 200}, [])
    store.close()
    path = tmp_path / "searches.db"
    content = bytearray(path.read_bytes())
    end = 4096 * 6  # pages of searches, the schema before them stays
    content[-end:] = b"\xa5" * end
    path.write_bytes(content)
    with Store.open(url) as broken, pytest.raises(StorageError, match="the file is damaged: put back a copy"):
        broken.searches()


def test_measurement_that_fails_leaves_the_one_before(store: Store, add_trial: Callable[..., int]) -> None:
    trial_id = add_trial()
    store.add_measurement(trial_id, measurement(), {"test": {"mqar.accuracy": 0.5}}, task="mqar")
    with pytest.raises(StorageError, match="a value cannot be stored"):
        store.add_measurement(trial_id, measurement(validation={"accuracy": object()}), {}, task="mqar")
    assert [row.key for row in store.trial(trial_id).measurements] == ["k0"]
    assert store.metrics_frame("first", "test")["value"].tolist() == [0.5]


def test_driver_message_keeps_no_secret() -> None:
    url = "postgresql://me:s3cret@host/db?password=other"
    with pytest.raises(StorageError) as caught, storage_errors(url):
        raise OperationalError("SELECT 1", {}, Exception("connection failed: s3cret, other\n  at host"))
    assert str(caught.value) == (
        "postgresql://me:***@host/db?password=***: connection failed: ***, *** at host: "
        "check that the server runs and that the URL is right, and try again"
    )


class _ServerError(Exception):
    """What psycopg raises: the server's words, and its code where it sends one."""

    def __init__(self, said: str, sqlstate: str | None = None) -> None:
        super().__init__(said)
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("said", "sqlstate", "remedy"),
    [
        ("could not extend file: No space left on device", "53100", "the server's disk is full: make room there, or"),
        ("out of memory", "53200", "the server is out of memory: end what else runs there"),
        ("sorry, too many clients already", "53300", "raise max_connections"),
        ("connection failed: FATAL:  sorry, too many clients already", None, "raise max_connections"),
        ('connection failed: FATAL:  too many connections for role "me"', None, "CONNECTION LIMIT"),
        ("FATAL:  remaining connection slots are reserved for superusers", None, "raise max_connections"),
    ],
)
def test_what_a_server_has_no_more_of_is_told(said: str, sqlstate: str | None, remedy: str) -> None:
    with pytest.raises(StorageError) as caught, storage_errors("postgresql://host/db"):
        raise OperationalError("INSERT", {}, _ServerError(said, sqlstate))
    assert remedy in str(caught.value)
    assert "check that the server runs" not in str(caught.value)


def _deep() -> list[object]:
    found: list[object] = []
    for _ in range(5000):
        found = [found]
    return found


BAD_WRITES: dict[str, Callable[[Store, int], object]] = {
    "a metric of text": lambda store, trial: store.add_metrics(trial, [MetricValue(name="a", split="test", value="x")]),  # type: ignore[arg-type]
    "a curve of text": lambda store, trial: store.add_measurement(trial, measurement(curve="abc"), {}),
    "a curve without steps": lambda store, trial: store.add_measurement(trial, measurement(curve=[{"loss": 1.0}]), {}),
    "no task": lambda store, trial: store.add_measurement(trial, {"seed": 0}, {}),
    "a seed of text": lambda store, trial: store.add_measurement(trial, measurement(seed="x"), {}),
    "a seed too great": lambda store, trial: store.add_measurement(trial, measurement(seed=2**70), {}),
    "a payload too deep": lambda store, trial: store.add_measurement(trial, measurement(test=_deep()), {}),
    "a spec too deep": lambda store, trial: store.set_spec(1, {"a": _deep()}),
    "costs of text": lambda store, trial: store.add_trial(
        1,
        NewTrial(
            kind="search",
            state="queued",
            arch={},
            digest="d",
            pattern="",
            params={},
            seeds=[],
            costs={"a": "x"},  # type: ignore[dict-item]
            violations={},
        ),
    ),
}


@pytest.mark.parametrize("write", BAD_WRITES.values(), ids=BAD_WRITES)
def test_what_is_no_plain_data_is_refused(
    store: Store, add_trial: Callable[..., int], write: Callable[[Store, int], object]
) -> None:
    trial = add_trial()
    before = (store.trial(trial), len(store.metrics_frame("first")), store.searches())
    with pytest.raises(StorageError, match=r"a value cannot be stored|out of range: give a smaller number"):
        write(store, trial)
    assert (store.trial(trial), len(store.metrics_frame("first")), store.searches()) == before


@pytest.mark.parametrize("number", [-(2**70), -1, 2**70])
def test_numbers_that_no_database_takes(store: Store, add_trial: Callable[..., int], number: int) -> None:
    trial = add_trial()
    page = store.trial_page("first", TrialQuery(limit=number, offset=0))
    assert (page.total, len(page.rows)) == (1, 1 if number > 0 else 0)
    assert len(store.trial_page("first", TrialQuery(offset=number)).rows) == (0 if number > 0 else 1)
    assert store.sample("first", number).complete == 0
    for act in (lambda: store.search(number), lambda: store.trial(number), lambda: store.heartbeat(number)):
        with pytest.raises(StorageError, match=f"{number}"):
            act()
    assert store.trial(trial).id == trial
