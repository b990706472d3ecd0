"""Database URLs: secrets hidden, bad ones refused, and which one is used."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from archsearch.errors import StorageError
from archsearch.storage import Store, hide, storage_url
from archsearch.storage.url import read_url, scrub, sqlite_path


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///a.db", "sqlite:///a.db"),
        ("sqlite:////home/me:too@home/a.db", "sqlite:////home/me:too@home/a.db"),
        ("postgresql://host/db", "postgresql://host/db"),
        ("postgresql://me@host/db?sslmode=require", "postgresql://me@host/db?sslmode=require"),
        ("postgresql://me:s3cret@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("postgresql://:s3cret@host/db", "postgresql://:***@host/db"),
        ("postgresql://me:s3c@ret:/?@host/db", "postgresql://me:***@host/db"),
        ("postgresql://host/db?user=me&password=s3cret", "postgresql://host/db?user=me&password=***"),
        ("postgresql://host/db?PASSWORD=s3cret&user=me", "postgresql://host/db?PASSWORD=***&user=me"),
        ("postgresql://host/db?pass%77ord=s3cret", "postgresql://host/db?pass%77ord=***"),
        ("postgresql://me:s3cret@host/db?sslpassword=s3cret", "postgresql://me:***@host/db?sslpassword=***"),
        ("not a url with password=", "not a url with password="),
        ("postgresql://me:s3c@ret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:s3c@ret/s3c@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:s3c#ret%x:@host/db", "postgresql://me:***@host/db"),
        ("postgresql+psycopg2://me:s3c@r@et@host:1/db", "postgresql+psycopg2://me:***@host:1/db"),
        ("postgresql://host/db?user=me;password=s3cret", "postgresql://host/db?user=me;password=***"),
        ("postgresql://host/db;password=s3;c=ret", "postgresql://host/db;password=***"),
        ("postgresql://host/db?password=s3;c=ret&user=me", "postgresql://host/db?password=***&user=me"),
        ("host=db user=me password='s3 cret'", "host=db user=me password=***"),
        ("host=db password = s3cret", "host=db password =***"),
        ("sqlite:///password=1.db", "sqlite:///password=1.db"),
        ("postgresql://me@corp:s3c@ret@host/db", "postgresql://me@corp:***@host/db"),
        ("postgresql://me@host:5432/db?user=a@b", "postgresql://me@host:5432/db?user=a@b"),
        ("postgresql:/me:s3cret@host/db", "postgresql:/me:***@host/db"),
        ("postgresql:me:s3c:ret@host/db", "postgresql:me:***@host/db"),
        ("me:s3c:r@et@host/db", "me:***@host/db"),
        ("postgresql://me:s3cret", "postgresql://me:***"),
        ("postgresql://me:s3cret host/db", "postgresql://me:***"),
        ("postgresql://host:5432", "postgresql://host:5432"),
        ("postgresql://host:5432/db?sslmode=require", "postgresql://host:5432/db?sslmode=require"),
        ("sqlite:////a:b@c.db", "sqlite:////a:b@c.db"),
        ("sqlite:///a:b@c.db", "sqlite:///a:b@c.db"),
    ],
)
def test_hide(url: str, shown: str) -> None:
    assert hide(url) == shown


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("results.db", "no database URL: write sqlite:///FILE"),
        ("", "no database URL"),
        ("postgresql://me:s3cret@host:port/db", "no database URL"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite://a.db", "write sqlite:///a.db"),
        ("sqlite:///a.db?timeout=1", "takes no options after a"),
        ("postgres://host/db", "write sqlite:///FILE or postgresql://"),
        ("mysql://me:s3cret@host/db", "mysql databases are not supported"),
        ("postgresql+nothing://me:s3cret@host/db", "write postgresql+psycopg://"),
        ("postgresql://me:p@s3cret@host/db", "write %40"),
        ("postgresql://me:p@s3/cret@host/db", "write %40"),
        ("postgresql+psycopg2://me:p@s3cret@127.0.0.1:1/db", "write %40"),
        ("postgresql+psycopg://me:@s3cret@host/db?connect_timeout=1", "write %40"),
        ("postgresql://me:s3cret", "no database URL"),
    ],
)
@pytest.mark.parametrize("read_only", [False, True], ids=["write", "read"])
def test_bad_url_is_refused_with_the_remedy(url: str, told: str, read_only: bool) -> None:
    with pytest.raises(StorageError) as caught:
        Store.open(url, read_only=read_only)
    assert told in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("form", "driver", "package"),
    [
        ("postgresql", "psycopg", "archsearch[postgres]"),
        ("postgresql+psycopg", "psycopg", "archsearch[postgres]"),
        ("postgresql+psycopg2", "psycopg2", "psycopg2-binary"),
    ],
)
def test_missing_driver_names_the_package(
    monkeypatch: pytest.MonkeyPatch, form: str, driver: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, driver, None)
    with pytest.raises(StorageError) as caught:
        Store.open(f"{form}://me:s3cret@host/db?password=s3cret")
    assert f"pip install '{package}'" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_scrub_takes_secrets_out_of_what_a_driver_says() -> None:
    url = "postgresql://me:p%40ss@host/db?password=other"
    said = f"cannot connect to {url}: p@ss and p%40ss and other are wrong"
    assert scrub(said, url) == f"cannot connect to {hide(url)}: *** and *** and *** are wrong"
    assert scrub('no role "me;password=s3cret"', "postgresql://host/db?user=me;password=s3cret") == 'no role "***"'


def test_sqlite_path_is_absolute() -> None:
    assert sqlite_path(read_url("sqlite:///a.db")) == Path.cwd() / "a.db"
    assert sqlite_path(read_url("sqlite:////tmp/a.db")) == Path("/tmp/a.db")
    assert sqlite_path(read_url("sqlite:///~/a.db")) == Path.home() / "a.db"
    assert sqlite_path(read_url("postgresql://host/db")) is None


def test_storage_url_takes_the_nearest_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARCHSEARCH_STORAGE", raising=False)
    assert storage_url() == "sqlite:///archsearch.db"
    assert storage_url(spec="sqlite:///spec.db") == "sqlite:///spec.db"
    monkeypatch.setenv("ARCHSEARCH_STORAGE", "sqlite:///env.db")
    assert storage_url(spec="sqlite:///spec.db") == "sqlite:///env.db"
    assert storage_url("sqlite:///given.db", spec="sqlite:///spec.db") == "sqlite:///given.db"


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that ARCHSEARCH_STORAGE_FILE names, for its owner alone."""
    path = tmp_path / "storage"
    path.write_text("postgresql://me:s3cret@host/db\n")
    path.chmod(0o600)
    monkeypatch.delenv("ARCHSEARCH_STORAGE", raising=False)
    monkeypatch.setenv("ARCHSEARCH_STORAGE_FILE", str(path))
    return path


def test_a_file_may_hold_the_url(secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert storage_url(spec="sqlite:///spec.db") == "postgresql://me:s3cret@host/db"
    assert storage_url("sqlite:///given.db") == "sqlite:///given.db"
    monkeypatch.setenv("ARCHSEARCH_STORAGE", "sqlite:///named.db")
    assert storage_url() == "sqlite:///named.db"


@pytest.mark.parametrize("url", ["postgresql://me:its s3cret@host/db", "sqlite:////data/our searches/first one.db"])
def test_a_url_in_a_file_may_hold_spaces(secret: Path, url: str) -> None:
    secret.write_text(f"\n  {url} \n\n")
    assert storage_url() == url


@pytest.mark.parametrize("mode", [0o660, 0o604, 0o644, 0o620])
def test_a_file_that_others_can_read_is_refused(secret: Path, mode: int) -> None:
    secret.chmod(mode)
    with pytest.raises(StorageError, match=rf"can be read by others \(mode {mode:04o}\): chmod 600 {secret}") as caught:
        storage_url()
    assert "s3cret" not in str(caught.value)


def test_the_group_may_read_a_file_of_root_alone(secret: Path) -> None:
    secret.chmod(0o640)
    if secret.stat().st_uid == 0:
        assert storage_url().startswith("postgresql:")
    else:
        with pytest.raises(StorageError, match="can be read by others"):
            storage_url()


@pytest.mark.parametrize(
    ("text", "told"),
    [(" \n\n", "holds nothing"), ("postgresql://me:s3cret\n@host/db", "holds 2 lines"), (None, "No such")],
)
def test_a_file_without_a_url_is_told(secret: Path, text: str | None, told: str) -> None:
    if text is None:
        secret.unlink()
    else:
        secret.write_text(text)
    with pytest.raises(StorageError, match=told) as caught:
        storage_url()
    assert "ARCHSEARCH_STORAGE_FILE" in str(caught.value)
    assert "s3cret" not in str(caught.value)
