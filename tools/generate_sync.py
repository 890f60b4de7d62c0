"""Write the sync twins of async sources: `python tools/generate_sync.py [--check]`.

The translation works on tokens, so it never touches what merely looks like code, and ruff lays out the result. What has
no sync meaning stands between `# async only` and `# end async only` and is left out; what only the sync side needs
stands, commented out, between `# sync only` and `# end sync only`. Anything else that cannot be translated is an error
with its line. Every rule must match somewhere in the sources, so that no rule outlives its purpose.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import io
import keyword
import re
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {
    Path("python/bmdb/_async"): Path("python/bmdb/_sync"),
    Path("python/bmdb/loops/_async"): Path("python/bmdb/loops/_sync"),
    Path("tests/behaviour/async_"): Path("tests/behaviour/sync_"),
}
HEADER = "# Generated from {source} by tools/generate_sync.py: do not edit.\n"

# One name for another, wherever it stands as a name in code.
NAMES = {
    "_async": "_sync",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
}
# Dotted names: those of asyncio for what does the same to a thread.
DOTTED = {
    "AsyncConnection.connect": "connect",
    "asyncio.Barrier": "threading.Barrier",
    "asyncio.sleep": "time.sleep",
}
# The rules that are no table: names starting with Async, names ending in _async, and syntax.
GENERAL = ("async", "await", "Async…", "…_async", "Awaitable[…]", "# async only", "# sync only")
# Types without a twin of the same shape.
REFUSED = {"AsyncGenerator", "Coroutine", "asyncio"}

PREFIXED = re.compile(r"Async(?=[A-Z])")
SUFFIXED = re.compile(r"(?<=\w)_async$")
PROSE = [
    (re.compile(r"\basync (?=(?:def|for|with)\b)"), ""),
    (re.compile(r"\bawait (?=[\w.]+\()"), ""),
    (re.compile(r"\bAsync(?=[A-Z])"), ""),
    (re.compile(r"\bbmdb\._async\b"), "bmdb._sync"),
    (re.compile(r"(?<=\w)_async\b(?=\()"), ""),
]
OPENING, CLOSING = {"(", "[", "{"}, {")", "]", "}"}
LAYOUT = {tokenize.NL, tokenize.NEWLINE, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT}
TEXT = {getattr(tokenize, name) for name in ("STRING", "COMMENT", "FSTRING_MIDDLE") if hasattr(tokenize, name)}


class Untranslatable(Exception):
    """The source holds something that no rule covers; the message names the file and the line."""


@dataclass
class Source:
    """One async file while it is translated: its text, its tokens, and the edits that they call for."""

    name: str
    text: str
    used: Counter[str]
    tokens: list[tokenize.TokenInfo] = field(default_factory=list)
    edits: list[tuple[int, int, str]] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)

    def fail(self, line: int, what: str) -> Untranslatable:
        """The error to raise. `line` counts what select_blocks kept; the message tells the line of the file."""
        number = self.numbers[line - 1] if 0 < line <= len(self.numbers) else line
        return Untranslatable(f"{self.name}:{number}: {what}")

    def replace(self, first: tokenize.TokenInfo, end: tuple[int, int], by: str) -> None:
        self.edits.append((self.offset(first.start), self.offset(end), by))

    def offset(self, position: tuple[int, int]) -> int:
        line, column = position
        return self.starts[line - 1] + column

    def scan(self) -> None:
        self.starts = list(accumulate(map(len, io.StringIO(self.text)), initial=0))
        self.tokens = list(tokenize.generate_tokens(io.StringIO(self.text).readline))

    def edited(self) -> str:
        text = self.text
        for start, end, by in sorted(self.edits, reverse=True):
            text = text[:start] + by + text[end:]
        return text


def select_blocks(source: Source) -> None:
    """Drop the async-only blocks, and lay open the sync-only ones. Both kinds hold whole lines and do not nest."""
    kept: list[str] = []
    numbers: list[int] = []
    block, opened = "", 0
    for number, line in enumerate(io.StringIO(source.text), start=1):
        mark = line.strip()
        if mark in ("# async only", "# sync only"):
            if block:
                raise source.fail(number, f"{mark!r} inside the block of line {opened}")
            block, opened = mark, number
            source.used[mark] += 1
        elif mark in ("# end async only", "# end sync only"):
            if mark != block.replace("# ", "# end "):
                raise source.fail(number, f"{mark!r} ends no block")
            block = ""
        elif block == "# sync only":
            if mark and not mark.startswith("#"):
                raise source.fail(number, "a line of a sync-only block is not commented out")
            kept.append(re.sub(r"^(\s*)# ?", r"\1", line))
            numbers.append(number)
        elif not block:
            kept.append(line)
            numbers.append(number)
    if block:
        raise source.fail(opened, f"{block!r} is never ended")
    source.text, source.numbers = "".join(kept), numbers


def translate(text: str, name: str, used: Counter[str]) -> str:
    """The sync twin of `text`, not yet laid out; `used` counts the rules that matched. Raises Untranslatable."""
    source = Source(name, text, used)
    select_blocks(source)
    for node in parsed(source, source.text):
        if isinstance(node, ast.JoinedStr) and any(isinstance(part, ast.Await) for part in ast.walk(node)):
            raise source.fail(node.lineno, "await inside an f-string; give what it answers a name first")
    source.scan()
    significant = [token for token in source.tokens if token.type not in LAYOUT]
    for token in source.tokens:
        if token.type in TEXT:
            edit_prose(source, token)
    for index, token in enumerate(significant):
        if token.type == tokenize.NAME or token.string in ("async", "await"):
            edit_name(source, significant, index)
    result = source.edited()
    for node in parsed(source, result):
        if isinstance(node, ast.AsyncFunctionDef | ast.AsyncFor | ast.AsyncWith | ast.Await):
            raise source.fail(node.lineno, "async syntax is left in the translation")
    return result


def parsed(source: Source, text: str) -> Iterator[ast.AST]:
    """All nodes of `text`, which is the source before or after its translation."""
    try:
        return ast.walk(ast.parse(text))
    except SyntaxError as error:
        raise source.fail(error.lineno or 0, f"does not parse: {error.msg}: {(error.text or '').strip()}") from error


def edit_prose(source: Source, token: tokenize.TokenInfo) -> None:
    # Not token.string: in an f-string that has single braces where the source has doubled ones.
    written = prose = source.text[source.offset(token.start) : source.offset(token.end)]
    for pattern, by in PROSE:
        prose = pattern.sub(by, prose)
    if prose != written:
        source.replace(token, token.end, prose)


def edit_name(source: Source, tokens: list[tokenize.TokenInfo], index: int) -> None:
    token, following = tokens[index], tokens[index + 1]
    word = token.string
    dotted = f"{word}.{tokens[index + 2].string}" if following.string == "." else ""
    if word in ("async", "await"):
        source.used[word] += 1
        source.replace(token, following.start, "")
        if word == "await":
            unwrap(source, tokens, index)
    elif dotted in DOTTED:
        source.used[dotted] += 1
        source.replace(token, tokens[index + 2].end, DOTTED[dotted])
    elif word == "asyncio" and DOTTED and index and tokens[index - 1].string == "import":
        # Layout drops those that are not used.
        source.replace(
            token, token.end, ", ".join(sorted({name.partition(".")[0] for name in DOTTED.values() if "." in name}))
        )
    elif word in REFUSED:
        raise source.fail(token.start[0], f"{dotted or word} has no sync meaning; put it between # async only marks")
    elif word in NAMES:
        source.used[word] += 1
        source.replace(token, token.end, NAMES[word])
    elif word == "Awaitable" and following.string == "[":
        if index and tokens[index - 1].string == ".":
            raise source.fail(token.start[0], "import Awaitable by its own name, not by its module's")
        source.used["Awaitable[…]"] += 1
        source.replace(token, following.end, "")
        last = tokens[closing(tokens, index + 1)]
        source.replace(last, last.end, "")
    elif PREFIXED.match(word):
        source.used["Async…"] += 1
        source.replace(token, token.end, PREFIXED.sub("", word, count=1))
    elif SUFFIXED.search(word):
        bare = SUFFIXED.sub("", word)
        if keyword.iskeyword(bare):
            raise source.fail(token.start[0], f"{word} would turn into the keyword {bare}")
        source.used["…_async"] += 1
        source.replace(token, token.end, bare)


def closing(tokens: list[tokenize.TokenInfo], index: int) -> int:
    """The index of the bracket that closes the one at `index`."""
    depth = 0
    for at in range(index, len(tokens)):
        if tokens[at].type == tokenize.OP:  # the text of an f-string can be a lone brace, too
            depth += (tokens[at].string in OPENING) - (tokens[at].string in CLOSING)
        if not depth:
            return at
    raise AssertionError("tokenize lets no bracket stand open")


def unwrap(source: Source, tokens: list[tokenize.TokenInfo], index: int) -> None:
    """Take the parentheses off `(await a.b(c)).d`, which the sync side does not need."""
    if index < 2 or tokens[index - 1].string != "(":
        return
    before = tokens[index - 2]
    is_call = before.string in (")", "]") or (before.type == tokenize.NAME and not keyword.iskeyword(before.string))
    end = closing(tokens, index - 1)
    if is_call or tokens[end + 1].string not in (".", "["):
        return
    at = index + 1
    while at < end:
        if tokens[at].string in ("(", "["):
            at = closing(tokens, at)
        elif tokens[at].string != "." and (tokens[at].type != tokenize.NAME or keyword.iskeyword(tokens[at].string)):
            return
        at += 1
    for bracket in (tokens[index - 1], tokens[end]):
        source.replace(bracket, bracket.end, "")


def lay_out(text: str, target: Path) -> str:
    """`text` as ruff formats it for `target`, without the imports that the translation has left unused."""
    ruff = [sys.executable, "-m", "ruff"]
    as_file = ["--stdin-filename", str(target), "-"]
    for command in (["check", "--quiet", "--fix-only", "--select", "F401,I001,UP034"], ["format", "--quiet"]):
        done = subprocess.run(
            [*ruff, *command, *as_file], input=text, capture_output=True, text=True, cwd=ROOT, check=False
        )
        if done.returncode:
            raise Untranslatable(f"{target}: ruff {command[0]} failed: {done.stderr.strip() or done.stdout.strip()}")
        text = done.stdout
    return text


def unused_rules(used: Counter[str]) -> list[str]:
    """The rules that matched nothing."""
    return [rule for rule in (*GENERAL, *NAMES, *DOTTED) if not used[rule]]


def twins(root: Path, used: Counter[str]) -> dict[Path, str]:
    """What each generated file has to hold, by its path relative to `root`."""
    wanted: dict[Path, str] = {}
    for origin, destination in FOLDERS.items():
        for path in sorted((root / origin).rglob("*.py")):
            relative = path.relative_to(root)
            target = destination / path.relative_to(root / origin)
            body = translate(path.read_text(encoding="utf-8"), str(relative), used)
            wanted[target] = lay_out(HEADER.format(source=relative.as_posix()) + body, target)
    return wanted


def present(root: Path) -> dict[Path, str]:
    """The Python files that stand in the generated folders now."""
    return {
        path.relative_to(root): path.read_text(encoding="utf-8")
        for folder in FOLDERS.values()
        for path in sorted((root / folder).rglob("*.py"))
    }


def differences(found: dict[Path, str], wanted: dict[Path, str]) -> list[str]:
    """A unified diff from what stands there to what should, file by file; empty if they agree."""
    lines: list[str] = []
    for path in sorted(found.keys() | wanted.keys()):
        before, after = found.get(path), wanted.get(path)
        if before == after:
            continue
        # An empty file that is missing, or one too many, has no lines to differ in.
        lines.append(
            f"{path}: {'missing' if before is None else 'has no source' if after is None else 'out of date'}\n"
        )
        lines += difflib.unified_diff(
            (before or "").splitlines(keepends=True), (after or "").splitlines(keepends=True), str(path), "generated"
        )
    return lines


def write(root: Path, found: dict[Path, str], wanted: dict[Path, str]) -> list[Path]:
    """Bring the generated folders up to date; answers the paths that changed."""
    changed = []
    for path in sorted(found.keys() | wanted.keys()):
        if found.get(path) == wanted.get(path):
            continue
        changed.append(path)
        if path in wanted:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(wanted[path], encoding="utf-8")
        elif found[path].startswith(HEADER.partition("{")[0]):
            (root / path).unlink()
        else:
            raise Untranslatable(f"{path}: was not generated, so it does not belong there; move it")
    return changed


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Generate or check. Exit code 1: out of date, or a rule matches nothing; 2: a source cannot be translated."""
    parser = argparse.ArgumentParser(description="Write the sync twins of the async sources.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; print a diff and exit 1 if anything differs"
    )
    checking: bool = parser.parse_args(arguments).check
    used: Counter[str] = Counter()
    try:
        wanted = twins(root, used)
        found = present(root)
        changed = differences(found, wanted) if checking else [f"wrote {path}\n" for path in write(root, found, wanted)]
    except Untranslatable as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    sys.stdout.writelines(changed)
    idle = unused_rules(used)
    if idle:
        print(f"error: rules that match nothing in any source: {', '.join(idle)}; remove them", file=sys.stderr)
    if checking and changed:
        print("error: the sync code is out of date: run make generate", file=sys.stderr)
    return 1 if idle or (checking and changed) else 0


if __name__ == "__main__":
    sys.exit(main())
