"""``doctor`` on machines that lack something; and what no command imports from the current folder."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import Result

from archsearch.cli import doctor, machine
from archsearch.cli.dashboard import command
from archsearch.evidence.kept import keep
from archsearch.evidence.proofs import Proof, proven_source

Run = Callable[..., Result]
NOT_WRITABLE = "/proc/archsearch"


@pytest.fixture(autouse=True)
def light_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The libraries are tried elsewhere."""
    monkeypatch.setattr(doctor, "_PROBES", {})


@pytest.fixture
def open_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def check(run: Run, name: str, code: int) -> dict[str, str]:
    """What doctor says of one thing."""
    result = run("doctor", "--json")
    assert result.exit_code == code, result.output
    found: dict[str, dict[str, str]] = {one["name"]: one for one in json.loads(result.stdout)["checks"]}
    return found[name]


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_address_is_none_as_it_is_for_a_search(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, empty: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", empty)
    assert check(run, "RAY_ADDRESS", 0)["detail"] == "empty: a Ray of its own is started"


@pytest.mark.parametrize(
    ("variables", "name", "told"),
    [
        ({"XDG_CACHE_HOME": NOT_WRITABLE}, "cache folder", "set XDG_CACHE_HOME, or HOME, to a folder"),
        ({"XDG_CACHE_HOME": "", "HOME": NOT_WRITABLE}, "cache folder", "/proc/archsearch/.cache/archsearch: "),
        ({"RAY_ADDRESS": "host:port"}, "RAY_ADDRESS", "is no address of a Ray cluster"),
        ({"RAY_ADDRESS": "head"}, "RAY_ADDRESS", "has no host and port"),
        ({"RAY_ADDRESS": "ray://a..b:1"}, "RAY_ADDRESS", "nothing listens at"),
        ({"RAY_ADDRESS": "127.0.0.1:1"}, "RAY_ADDRESS", "(Connection refused): start the cluster"),
        (
            {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/none/token"},
            "Ray's token",
            "the token file /none/token cannot be read (No such file or directory): name the cluster's token file",
        ),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/dev/null"}, "Ray's token", "is empty"),
        ({"RAY_AUTH_MODE": "banana"}, "Ray's token", 'RAY_AUTH_MODE is "banana", by which Ray asks nobody'),
        (
            {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "", "HOME": "/none"},
            "Ray's token",
            "/none/.ray/auth_token cannot be read",
        ),
    ],
)
def test_what_is_broken_is_told_with_the_remedy(
    run: Run,
    trials: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    variables: dict[str, str],
    name: str,
    told: str,
) -> None:
    for key, value in {"XDG_CACHE_HOME": str(tmp_path), **variables}.items():
        monkeypatch.setenv(key, value)
    found = check(run, name, 1)
    assert found["status"] == "broken"
    assert told in found["detail"]


def test_a_temporary_folder_that_cannot_be_written(
    run: Run, trials: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", NOT_WRITABLE)
    found = check(run, "temporary folder", 1)
    assert "set TMPDIR to a folder that can be written" in found["detail"]


def test_what_is_in_order(
    run: Run, trials: dict[str, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, open_port: int
) -> None:
    token = tmp_path / "token"
    token.write_text("secret-of-the-cluster")
    token.chmod(0o600)
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{open_port}")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    result = run("doctor", "--json")
    assert result.exit_code == 0, result.output
    found = {one["name"]: one["status"] for one in json.loads(result.stdout)["checks"]}
    wanted = {"cache folder", "temporary folder", "disk", "cores", "encoding", "database", "RAY_ADDRESS", "Ray's token"}
    assert {found[name] for name in wanted} == {"ok"}
    assert "secret-of-the-cluster" not in result.stdout


def test_little_memory_is_a_note(
    run: Run, trials: dict[str, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:  1024 kB\n")
    monkeypatch.setattr(machine, "_MEMORY", tmp_path / "meminfo")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = check(run, "memory", 0)
    assert found == {
        "name": "memory",
        "status": "note",
        "detail": "1 MiB available: Ray and one trial take about 2 GiB",
    }


@pytest.fixture
def poisoned(tmp_path: Path) -> Path:
    """A folder of modules that leave a file where they are imported."""
    folder = tmp_path / "poisoned"
    folder.mkdir()
    for name in ("csv", "json", "streamlit", "archsearch_dashboard", "torch", "ray", "triton", "typing"):
        (folder / f"{name}.py").write_text(
            f"open({str(folder / 'imported')!r}, 'a').write('{name} ')\nraise SystemExit(9)"
        )
    return folder


def test_the_server_imports_nothing_of_the_current_folder(poisoned: Path) -> None:
    words = command("127.0.0.1", 8501, [])
    words = [*words[: words.index("archsearch_dashboard.serve") + 1], "--help"]
    done = subprocess.run(
        [sys.executable, *words], cwd=poisoned, capture_output=True, text=True, timeout=240, check=False
    )
    assert not (poisoned / "imported").exists()
    assert done.returncode == 0, done.stderr
    assert "streamlit run" in done.stdout


def test_doctor_imports_nothing_of_the_current_folder(poisoned: Path) -> None:
    code = "import sys; sys.argv[1:] = ['doctor', '--json']; from archsearch.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=poisoned,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env={**os.environ, "ARCHSEARCH_STORAGE": f"sqlite:///{poisoned}/none.db", "XDG_CACHE_HOME": str(poisoned)},
    )
    assert not (poisoned / "imported").exists()
    found = {one["name"]: one["status"] for one in json.loads(done.stdout)["checks"]}
    assert (found["torch"], found["ray"]) == ("ok", "ok"), done.stdout


def test_a_kernel_that_failed_here_is_named_with_its_figure(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ARCHSEARCH_CACHE", str(tmp_path))
    assert "none was put to the proof here yet" in check(run, "kernels", 0)["detail"]
    package = "archsearch_plugins.full.triton"
    row = {"op": "full_attention", "arch": "sm_90", "chunk": 0, "card": "H200", "driver": "580", "ptxas": "12.8"}
    now = {**row, "package": package, "torch": version("torch"), "triton": version("triton"), "date": "2026-01-01"}
    passed = Proof(**now, head_dim=64, source=proven_source(package))
    failed = passed.model_copy(update={"head_dim": 128, "fault": "lengths tokens=65: output 0 is off by 0.5"})
    keep([passed, failed, passed.model_copy(update={"head_dim": 256, "fault": "it took 120 s", "timeouts": 2})])
    found = check(run, "kernel full_attention", 0)
    assert found["status"] == "note"
    assert found["detail"] == (
        "PyTorch: no NVIDIA card is here; Triton and PyTorch on H200, driver 580: 1 of 10 rows passed; "
        "sm_90 D=128 bfloat16: failed: lengths tokens=65: output 0 is off by 0.5; "
        "sm_90 D=256 bfloat16: not proven, ran out of time 2 times in a row (it took 120 s): its next first use tries "
        "again; 7 not proven yet: their first use on this card proves them, proven 2026-01-01"
    )
    monkeypatch.setenv("ARCHSEARCH_PROVE", "never")
    assert "Triton" not in check(run, "kernel full_attention", 0)["detail"]
    monkeypatch.setenv("ARCHSEARCH_PROVE", "sometimes")
    assert check(run, "kernels", 1)["detail"].startswith("ARCHSEARCH_PROVE=sometimes: unknown")


def test_proofs_that_cannot_be_read_are_named(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ARCHSEARCH_CACHE", str(tmp_path))
    (tmp_path / "proofs.json").write_text("{")
    found = check(run, "kernels", 0)
    assert found["status"] == "note"
    assert found["detail"].startswith(f"{tmp_path}/proofs.json: holds no proofs of kernels")
    assert "archsearch kernels prove" in found["detail"]


@pytest.mark.parametrize(
    ("policy", "cards", "why"),
    [
        ("first-use", "none", "PyTorch: no NVIDIA card is here"),
        ("first-use", "NVIDIA H200, 580.1, 9.0", "not proven yet: their first use on this card proves them"),
        ("listed", "NVIDIA H200, 580.1, 9.0", "archsearch kernels prove proves them"),
        ("never", "NVIDIA H200, 580.1, 9.0", "ARCHSEARCH_PROVE=never"),
        ("first-use", "NVIDIA T4, 580.1, 7.5", "it has no configuration for sm_75, only for sm_80, sm_90"),
    ],
)
def test_every_op_that_has_kernels_is_told(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, policy: str, cards: str, why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ARCHSEARCH_CACHE", str(tmp_path))
    monkeypatch.setenv("ARCHSEARCH_PROVE", policy)
    monkeypatch.setattr("archsearch.kernels.machine.told_by", lambda *command: cards)
    checks = json.loads(run("doctor", "--json").stdout)["checks"]
    told = {one["name"].removeprefix("kernel "): one["detail"] for one in checks if one["name"].startswith("kernel ")}
    rows = json.loads(run("kernels", "list", "--json").stdout)["kernels"]
    assert told.keys() == {row["op"] for row in rows} >= {"gates", "short_conv", "linear_attention", "nsa_attention"}
    place = "" if cards == "none" else f" on {cards.split(',')[0]}, driver 580.1"
    assert all(detail.startswith(f"PyTorch{place}: ") and detail.endswith(why) for detail in told.values()), told
