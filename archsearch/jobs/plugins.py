"""Plugins that travel with a job: a folder as the files of its wheel, a requirement for the cluster's pip.

The files of a wheel lie beside the spec in the job's folder, which the search's own process and its workers import
from: no node needs an index, a compiler or pip for them, and all of them run the same source. Where a wheel asks for
what the cluster lacks, the wheel itself goes along too, for the cluster's pip to install with what it asks for.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

from archsearch.errors import PluginError
from archsearch.storage.scraps import scratch

BUILD_SECONDS = 300
_PLAIN = "-none-any.whl"
_JOB_FOLDER = "${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}"
"""As Ray and pip name the job's folder on a node where an environment is made."""


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """A built plugin: where its wheel lies, the name, version and digest of what is in it, and what it ``requires``
    (PEP 508); ``by_pip`` where the cluster's pip installs it for the sake of that."""

    path: Path
    name: str
    version: str
    digest: str
    requires: tuple[str, ...] = ()
    by_pip: bool = False

    @property
    def place(self) -> str:
        """Where the wheel lies in the job's folder; another one for another source, as Ray keeps what pip has made by
        the words that pip was given."""
        return f"wheels/{self.digest}/{self.path.name}"


@dataclass(frozen=True, kw_only=True)
class Plugins:
    """What travels: wheels as files, and requirements as they were given."""

    wheels: tuple[Wheel, ...] = ()
    requirements: tuple[str, ...] = ()

    def to_json(self) -> list[dict[str, Any]]:
        """What a job's row and key say of them."""
        built = [{"name": one.name, "version": one.version, "digest": one.digest} for one in self.wheels]
        return [*built, *({"requirement": text} for text in self.requirements)]

    @property
    def requires(self) -> tuple[str, ...]:
        """What the wheels ask for."""
        return tuple(dict.fromkeys(text for wheel in self.wheels for text in wheel.requires))

    @property
    def pip(self) -> list[str]:
        """What the cluster's pip is to install; empty where it is not needed."""
        return [*self.requirements, *(f"{_JOB_FOLDER}/{wheel.place}" for wheel in self.wheels if wheel.by_pip)]

    def installing(self, lacking: Collection[str]) -> Plugins:
        """The same, with those wheels for pip that ask for any of what is `lacking`."""
        wheels = [replace(one, by_pip=one.by_pip or not set(lacking).isdisjoint(one.requires)) for one in self.wheels]
        return replace(self, wheels=tuple(wheels))

    def unpack(self, folder: Path) -> None:
        """Lays the files of the wheels into `folder`, and the wheels themselves where pip wants them."""
        for wheel in self.wheels:
            with zipfile.ZipFile(wheel.path) as archive:
                archive.extractall(folder)
            if wheel.by_pip:
                place = folder / wheel.place
                place.parent.mkdir(parents=True)
                shutil.copyfile(wheel.path, place)


@contextmanager
def packed(given: Iterable[str], tell: Any) -> Iterator[Plugins]:
    """The plugins of ``--plugin``, each a folder of source, a wheel or a requirement; the wheels go in the end.

    Raises `PluginError` for a folder of which no wheel can be built, and for one that holds compiled code.
    """
    texts = list(given)
    with scratch("wheels") as folder:
        paths = [(text, Path(text).expanduser()) for text in texts if _is_local(text)]
        wheels = [_read(path if path.suffix == ".whl" else _built(path, folder, tell)) for _, path in paths]
        local = {text for text, _ in paths}
        yield Plugins(wheels=tuple(wheels), requirements=tuple(text for text in texts if text not in local))


def _is_local(text: str) -> bool:
    """Whether it names a file or folder; what has a "/" is no requirement but for a URL."""
    path = Path(text).expanduser()
    if path.exists():
        return True
    if path.suffix == ".whl" or text.startswith((".", "/", "~")):
        raise PluginError(
            f'--plugin {text}: there is no such file or folder: name one, or a requirement as "mine==1.2"'
        )
    return False


def _built(folder: Path, target: Path, tell: Any) -> Path:
    if not (folder / "pyproject.toml").is_file() and not (folder / "setup.py").is_file():
        raise PluginError(
            f"--plugin {folder}: a folder with a pyproject.toml is wanted: `archsearch new-plugin` writes one"
        )
    tell(f"building a wheel of {folder}, at most {BUILD_SECONDS} s")
    into = Path(tempfile.mkdtemp(dir=target))
    words = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "--disable-pip-version-check"]
    try:
        done = subprocess.run(
            [*words, "--wheel-dir", str(into), str(folder.absolute())],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=BUILD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PluginError(
            f"--plugin {folder}: no wheel was built in {BUILD_SECONDS} s: give the wheel itself"
        ) from None
    found = sorted(into.glob("*.whl"))
    if done.returncode or len(found) != 1:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        said = next(
            (line for line in reversed(lines) if "error" in line.lower()), lines[-1] if lines else "no word of why"
        )
        raise PluginError(f"--plugin {folder}: no wheel can be built of it: {said}: try `pip wheel --no-deps {folder}`")
    return found[0]


def _read(path: Path) -> Wheel:
    if not path.name.endswith(_PLAIN):
        raise PluginError(
            f"--plugin {path.name}: it holds compiled code, which may not fit the cluster's nodes: install it there, "
            "and submit without it"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
            about = HeaderParser().parsestr(archive.read(_metadata(names)).decode("utf-8", "replace"))
            lines = [
                f"{name} {hashlib.sha256(archive.read(name)).hexdigest()}" for name in sorted(names) if _counts(name)
            ]
    except (OSError, zipfile.BadZipFile, KeyError, StopIteration) as error:
        raise PluginError(f"--plugin {path}: it is no wheel that can be read ({error}): build it again") from None
    outside = [name for name in names if name.startswith("/") or ".." in Path(name).parts]
    if outside or any(".data/" in name for name in names):
        raise PluginError(f"--plugin {path.name}: it installs files beside its packages: install it on the nodes")
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    requires = tuple(map(str, about.get_all("Requires-Dist") or ()))
    return Wheel(path=path, name=about["Name"], version=about["Version"], digest=digest, requires=requires)


def _metadata(names: Iterable[str]) -> str:
    return next(name for name in names if name.endswith(".dist-info/METADATA"))


def _counts(name: str) -> bool:
    """Whether a file says what the plugin is: the rest of a wheel tells how it was built."""
    return not name.endswith((".dist-info/RECORD", ".dist-info/WHEEL"))
