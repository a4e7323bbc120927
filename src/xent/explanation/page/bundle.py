"""ES modules in small files as one script, without a build tool.

A module begins with imports, ``import { a, b as c } from "./x.js";``, and exports declarations,
``export function a() {}``. Statements of both kinds begin their line. Each module becomes a scope
that returns what it exports, in an order in which whatever is imported has been evaluated.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass

_IMPORT = re.compile(r'import\s*\{([^{}]*)\}\s*from\s*"([^"\n]*)"\s*;[ \t]*$', re.MULTILINE)
_EXPORT = re.compile(r"export +(?=(?:async +)?function\b|const\b|class\b)")
_DECLARED = re.compile(r"(?:(?:async +)?function *\*?|const|class) +([A-Za-z_$][\w$]*)")
_NAME = re.compile(r"([A-Za-z_$][\w$]*)(?:\s+as\s+([A-Za-z_$][\w$]*))?")
_STATEMENT = re.compile(r"^(?:import|export)\b(?!\s*\()", re.MULTILINE)
_DYNAMIC = re.compile(r"\bimport\s*(?:\(|\.\s*meta\b)")
_ENDS_A_SCRIPT = re.compile(r"</script|<!--", re.IGNORECASE)
_NO_CODE = re.compile(r"(?:\s|//[^\n]*|/\*.*?\*/)*", re.DOTALL)


class BadModuleError(ValueError):
    """A module that breaks the rules above; the message names its file and line."""


@dataclass(frozen=True)
class _Import:
    line: int
    file: str
    names: tuple[tuple[str, str], ...]
    """What the other module calls it, and what this one does."""


@dataclass(frozen=True)
class _Module:
    file: str
    body: str
    """Without imports and without the word export."""
    imports: tuple[_Import, ...]
    exports: tuple[str, ...]


def bundled(entry: str, read: Callable[[str], str]) -> str:
    """The module ``entry`` and all that it imports, as one strict script.

    Args:
        entry: path of a module, ``main.js``.
        read: the text of a module by its path, with ``/`` between folders.

    Raises:
        BadModuleError: a module that is not there or breaks the rules.
    """
    modules: dict[str, _Module] = {}
    _visit(_module(entry, read(entry)), read, modules, (entry,))
    scope = {file: f"$module{place}" for place, file in enumerate(modules)}
    return "\n".join(_scope(module, scope) for module in modules.values())


def _visit(
    module: _Module, read: Callable[[str], str], done: dict[str, _Module], path: tuple[str, ...]
) -> None:
    """Adds a module behind everything that it imports."""
    for wanted in module.imports:
        if wanted.file in path:
            circle = " → ".join((*path[path.index(wanted.file) :], wanted.file))
            raise _bad(module.file, wanted.line, f"an import cycle: {circle}")
        if wanted.file not in done:
            try:
                text = read(wanted.file)
            except (OSError, KeyError):
                raise _bad(module.file, wanted.line, f"there is no {wanted.file}") from None
            _visit(_module(wanted.file, text), read, done, (*path, wanted.file))
        for name, _ in wanted.names:
            if name not in done[wanted.file].exports:
                raise _bad(module.file, wanted.line, f"{wanted.file} does not export {name}")
    done[module.file] = module


def _module(file: str, text: str) -> _Module:
    for pattern, what in ((_DYNAMIC, "a dynamic import"), (_ENDS_A_SCRIPT, "the end of a script")):
        found = pattern.search(text)
        if found is not None:
            raise _bad(file, _line(text, found.start()), f"{what}, {found[0]}")
    imports, begin = _imports(file, text)
    body, exports = _exports(file, text, begin)
    return _Module(file, body, imports, exports)


def _imports(file: str, text: str) -> tuple[tuple[_Import, ...], int]:
    """The imports at the top, and where the code begins."""
    found: list[_Import] = []
    place = 0
    while True:
        place = _end(_NO_CODE, text, place)
        statement = _IMPORT.match(text, place)
        if statement is None:
            return tuple(found), place
        found.append(_import(file, _line(text, place), statement))
        place = statement.end()


def _import(file: str, line: int, statement: re.Match[str]) -> _Import:
    names = []
    for part in statement[1].split(","):
        name = _NAME.fullmatch(part.strip())
        if name is not None:
            names.append((name[1], name[2] or name[1]))
        elif part.strip():
            raise _bad(file, line, f"an import of {part.strip()!r}, which is no name")
    if not statement[2].startswith(("./", "../")):
        raise _bad(file, line, f"an import from {statement[2]!r}, which is no relative path")
    target = posixpath.normpath(posixpath.join(posixpath.dirname(file), statement[2]))
    return _Import(line, target, tuple(names))


def _exports(file: str, text: str, begin: int) -> tuple[str, tuple[str, ...]]:
    """The code without the word export, and the names it exported."""
    parts, names, place = [], [], begin
    for statement in _STATEMENT.finditer(text, begin):
        start = statement.start()
        word = _EXPORT.match(text, start)
        declared = _DECLARED.match(text, word.end()) if word else None
        if word is None or declared is None:
            raise _bad(file, _line(text, start), _forbidden(text, start))
        parts.append(text[place:start])
        place = word.end()
        names.append(declared[1])
    return "".join([*parts, text[place:]]), tuple(names)


def _forbidden(text: str, start: int) -> str:
    found = text[start:].partition("\n")[0]
    if found.startswith("import"):
        return f'expected import {{ a, b as c }} from "./x.js"; above all code, got {found}'
    return f"expected export function, const or class and one name, got {found}"


def _scope(module: _Module, scope: dict[str, str]) -> str:
    lines = [f"const {scope[module.file]} = (() => {{ // {module.file}"]
    for wanted in module.imports:
        names = ", ".join(f"{name}: {own}" if name != own else own for name, own in wanted.names)
        lines.append(f"const {{ {names} }} = {scope[wanted.file]};")
    lines += [module.body.rstrip(), f"return {{ {', '.join(module.exports)} }};", "})();"]
    return "\n".join(lines)


def _line(text: str, place: int) -> int:
    return text.count("\n", 0, place) + 1


def _end(pattern: re.Pattern[str], text: str, place: int) -> int:
    found = pattern.match(text, place)
    return place if found is None else found.end()


def _bad(file: str, line: int, what: str) -> BadModuleError:
    return BadModuleError(f"{file}:{line}: {what}")
