"""What pages tell a reader to type exists: commands, their options, and targets of the Makefile."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from reference.commands import PROGRAM, root
from reference.pages import ROOT

_FENCE = re.compile(r"^(`{3,})(\w*)\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
_OPTIONAL = re.compile(r"\[((?:--|[A-Z])[^\[\]]*)\]")
_INLINE = re.compile(rf"`({PROGRAM} [^`]+)`")
_SHELL = {"", "sh", "bash", "console", "shell"}
_BETWEEN = {"|", "||", "&&", ";", ">", "2>"}


def lines_of(text: str) -> Iterator[str]:
    """The lines of the shell blocks of a page."""
    for _, language, block in _FENCE.findall(text):
        if language in _SHELL:
            yield from block.replace("\\\n", " ").splitlines()


def calls_in(line: str) -> Iterator[list[str]]:
    """The words of each call of a line, without variables that are set before it."""
    words: list[str] = []
    for word in [*shlex.split(line, comments=True), ";"]:
        if word not in _BETWEEN:
            words.append(word)
            continue
        while words and re.match(r"\w+=", words[0]):
            del words[0]
        if words:
            yield words
        words = []


def fault_of_line(line: str) -> str | None:
    """What is wrong with a line, None for nothing; a part in brackets may be left out, and is looked at by itself."""
    optional = [part for part in _OPTIONAL.findall(line) if line.startswith(PROGRAM) and '"' not in line]
    bare = _OPTIONAL.sub("", line) if optional else line
    for words in calls_in(bare) if PROGRAM in line or "make" in line else ():
        name = words[0].rpartition("/")[2]
        fault = fault_of_call(words[1:]) if name == PROGRAM else fault_of_make(words) if name == "make" else None
        if fault:
            return fault
    return fault_of_mention(shlex.split(" ".join([bare, *optional]), comments=True)[1:]) if optional else None


def fault_of_call(words: list[str]) -> str | None:
    """What the command line says against words, without running them."""
    command, rest = found(words)
    if hasattr(command, "commands"):
        return None if not rest else f"{rest[0]} is no command"
    try:
        command.make_context(command.name, rest)
    except Exception as error:  # typer's usage errors have no common public class
        return f"{' '.join(words)}: {error}"
    return None


def fault_of_mention(words: list[str]) -> str | None:
    """The first word that is no command, or option that the command does not have; arguments may be left out."""
    command, rest = found(words)
    if hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        return f"{rest[0]} is no command"
    known = {name for param in command.params for name in (*param.opts, *param.secondary_opts)} | {"--help"}
    return next((f"{word} is no option" for word in rest if word.startswith("--") and word not in known), None)


def found(words: list[str]) -> tuple[Any, list[str]]:
    """The command that words call, and the words after its name."""
    command, rest = root(), list(words)
    while rest and rest[0] in getattr(command, "commands", {}):
        command = command.commands[rest.pop(0)]
    return command, rest


def fault_of_make(words: list[str]) -> str | None:
    """The first target that the Makefile does not have."""
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    return next((f"make {word}: no such target" for word in words[1:] if word not in targets and "=" not in word), None)


def test_shell_blocks_call_commands_that_exist(text: str) -> None:
    assert [fault for line in lines_of(text) if (fault := fault_of_line(line))] == []


def test_commands_that_are_mentioned_exist(text: str) -> None:
    mentions = [" ".join(mention.split()) for mention in _INLINE.findall(_FENCE.sub("", text))]
    faults = {mention: fault_of_mention(_OPTIONAL.sub(r"\1", mention).split()[1:]) for mention in mentions}
    assert {mention: fault for mention, fault in faults.items() if fault} == {}


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("archsearch pareto quickstart --png front.png   # as a picture", None),
        ("archsearch dashboard [--storage URL] [--port N]", None),
        ("ARCHSEARCH_IMPL=reference .venv/bin/archsearch doctor | head", None),
        ('archsearch evaluate "kda full" --task mqar --seeds 3', None),
        ("cd /tmp && make demo", None),
        ("pip install 'archsearch[postgres]'", None),
        ("archsearch pareto", "Missing parameter"),
        ("archsearch paretto quickstart", "paretto is no command"),
        ("archsearch kernels compil", "compil is no command"),
        ("archsearch pareto quickstart --pgn front.png", "No such option"),
        ("archsearch dashboard [--storrage URL]", "--storrage is no option"),
        ('archsearch evaluate "kda full" --task mqar --seeds many', "valid integer"),
        ("make dmeo", "no such target"),
    ],
)
def test_a_wrong_line_is_found(line: str, fault: str | None) -> None:
    told = fault_of_line(line)
    assert told is None if fault is None else fault in str(told)


@pytest.mark.parametrize(
    ("mention", "fault"),
    [("show", None), ("resume NAME", None), ("shw 3", "shw is no command"), ("show --jsn", "--jsn is no option")],
)
def test_a_wrong_mention_is_found(mention: str, fault: str | None) -> None:
    assert fault_of_mention(mention.split()) == fault
