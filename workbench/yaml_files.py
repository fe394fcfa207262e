"""YAML files of settings, read as what they are: plain values, and nothing that hides among them.

Names, texts, numbers, true and false, lists and mappings are allowed. Tags (`!!python/...`),
aliases (with which a few lines can stand for terabytes), the same name twice and files of more than
1 MB are refused, each with file, line and column.
"""

import os
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.constructor import ConstructorError, SafeConstructor
from yaml.nodes import MappingNode
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.resolver import Resolver
from yaml.scanner import Scanner

from workbench.files import display_path, project_path

LARGEST = 1_000_000  # bytes
DEEPEST = 20  # mappings and lists inside one another
PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in
              ("null", "bool", "int", "float", "str", "seq", "map", "timestamp")}  # fmt: skip


class SettingsError(ValueError):
    """A file of settings cannot be used; the message names file, line and column."""


def read_settings(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The mapping that a YAML file holds; empty for a file without any value.

    Args:
        path: as given by a person: from the working directory, or else from the project's root.

    Raises:
        SettingsError: it cannot be read, or holds anything but plain settings.
    """
    file = Path(path) if Path(path).is_file() else project_path(path)
    text = _text(file, str(path))
    shown = display_path(file.resolve())
    try:
        value = _PlainLoader(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = error.problem or error.context
        raise SettingsError(f"{shown}{where}: not readable YAML: {reason}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise SettingsError(
            f"{shown}, line {line}: not readable YAML: the character {chr(error.character)!a} is "
            "not allowed"
        ) from error
    except (ValueError, OverflowError) as error:  # a date or a number that Python cannot hold
        raise SettingsError(f"{shown}: not readable YAML: {error}") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise SettingsError(
            f"{shown}: must hold lines of `name: value`, not a {type(value).__name__}"
        )
    return value


def _text(file: Path, given: str) -> str:
    if file.is_symlink() and not file.exists():
        raise SettingsError(f"{given}: is a link to {os.readlink(file)!r}, which is not there")
    if not file.exists():
        raise SettingsError(f"{given}: there is no such file")
    if not file.is_file():
        raise SettingsError(f"{given}: is a folder or a device, not a file")
    try:
        if file.stat().st_size > LARGEST:
            raise SettingsError(
                f"{given}: has more than {LARGEST:,} bytes; no file of settings has"
            )
        raw = file.read_bytes()
    except OSError as error:
        raise SettingsError(f"{given}: cannot be read ({error.strerror})") from error
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise SettingsError(f"{given}: not readable YAML: the file is UTF-16; save it as UTF-8")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise SettingsError(
            f"{given}, line {line}: not readable YAML: not UTF-8; save the file as UTF-8"
        ) from error


class _PlainConstructor(SafeConstructor):
    """Refuses a name that stands twice in one mapping, which PyYAML silently overwrites."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        if isinstance(node, MappingNode):
            seen: dict[str, Any] = {}
            for key, _ in node.value:
                name = key.value
                if key.tag != "tag:yaml.org,2002:str":
                    raise ConstructorError(None, None, "every name must be a word",
                                           key.start_mark)  # fmt: skip
                if name in seen:
                    first = seen[name].line + 1
                    raise ConstructorError(
                        None, None, f"{name!r} stands on line {first} already", key.start_mark
                    )
                seen[name] = key.start_mark
        return super().construct_mapping(node, deep=deep)


class _PlainLoader(Reader, Scanner, Parser, Composer, _PlainConstructor, Resolver):
    """PyYAML's safe loader without aliases, tags, merge keys and deep nesting."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        _PlainConstructor.__init__(self)
        Resolver.__init__(self)
        self.depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if getattr(event, "anchor", None) is not None:
            problem = f"the anchor or alias {event.anchor!r} is not allowed; write the value out"
            raise ConstructorError(None, None, problem, event.start_mark)
        self.depth += 1
        if self.depth > DEEPEST:
            problem = f"more than {DEEPEST} lists and mappings inside one another"
            raise ConstructorError(None, None, problem, event.start_mark)
        node: Any = super().compose_node(parent, index)
        self.depth -= 1
        if node.tag not in PLAIN_TAGS:
            problem = f"{node.tag.replace('tag:yaml.org,2002:', '!!')} is not allowed; only plain"
            raise ConstructorError(None, None, f"{problem} values are", node.start_mark)
        return node


_PlainLoader.add_constructor(None, None)  # no tag but the plain ones, checked above
