"""The translation from async to sync, rule by rule, and what it refuses."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from textwrap import dedent

import pytest

import generate_sync
from generate_sync import Untranslatable, differences, lay_out, main, select_blocks, translate, unused_rules

SOURCE = Path("python/bmdb/_async/things.py")
TARGET = Path("python/bmdb/_sync/things.py")
RENAMED = {
    "NAMES": {"_async": "_sync", "__aenter__": "__enter__"},
    "DOTTED": {"asyncio.sleep": "time.sleep", "asyncio.Lock": "threading.Lock", "AsyncPool.open": "open_pool"},
}


@pytest.fixture(autouse=True)
def tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of the test's own, so that it tells about the translation and not about today's sources."""
    for name, value in RENAMED.items():
        monkeypatch.setattr(generate_sync, name, value)


def sync(text: str) -> str:
    return translate(dedent(text), "source.py", Counter())


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("async def f():\n    pass\n", "def f():\n    pass\n"),
        ("async def f():\n    return await g(1)\n", "def f():\n    return g(1)\n"),
        ("async def f():\n    await (\n        g())\n", "def f():\n    (\n        g())\n"),
        ("async def f():\n    async with a as b, c:\n        pass\n", "def f():\n    with a as b, c:\n        pass\n"),
        ("async def f():\n    return [x async for x in y]\n", "def f():\n    return [x for x in y]\n"),
        ("async def __aenter__(self):\n    pass\n", "def __enter__(self):\n    pass\n"),
        ("from bmdb._async.work import AsyncWork\n", "from bmdb._sync.work import Work\n"),
        ("bmdb.AsyncConnection.connect()\n", "bmdb.Connection.connect()\n"),
        ("x: AsyncIterator[int]\n", "x: Iterator[int]\n"),
        ("core.begin_async(1)\n", "core.begin(1)\n"),
        ("f: Callable[[Q], Awaitable[list[T]]]\n", "f: Callable[[Q], list[T]]\n"),
        ("f: Awaitable[Awaitable[T]]\n", "f: T\n"),
        ("asyncio.sleep(1)\n", "time.sleep(1)\n"),
        ("pools.AsyncPool.open(1)\n", "pools.open_pool(1)\n"),
        ("import asyncio\n", "import threading, time\n"),
    ],
)
def test_a_rule_translates(source: str, expected: str) -> None:
    assert sync(source) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("(await f(a, b)).c", "f(a, b).c"),
        ("(await f())[0]", "f()[0]"),
        ('(await f(f"{{é")).c', 'f(f"{{é").c'),
        ("(await a.b[0](c)).d", "a.b[0](c).d"),
        ("(await a or b).c", "(a or b).c"),
        ("g(await f()).c", "g(f()).c"),
        ("return (await f()).c", "return f().c"),
        ("x = (await f())", "x = (f())"),
    ],
)
def test_parentheses_go_only_where_they_are_not_needed(source: str, expected: str) -> None:
    assert sync(f"async def f():\n    {source}\n") == f"def f():\n    {expected}\n"


@pytest.mark.parametrize("untouched", ["asynchronous = 1\n", "_asyncing = 1\n", "Asynchronous = 1\n", "awaiting()\n"])
def test_names_that_only_look_async_stay(untouched: str) -> None:
    assert sync(untouched) == untouched


def test_prose_follows_the_code_it_shows() -> None:
    source = '''
        def f():
            """An AsyncWork; use `await work.finish()` and `async with`, or core.begin_async().

            You await the result, in an async manner.
            """
            return ["AsyncWork", f"AsyncWork {{AsyncWork}}"]  # AsyncWork
        '''
    expected = '''
        def f():
            """An Work; use `work.finish()` and `with`, or core.begin().

            You await the result, in an async manner.
            """
            return ["Work", f"Work {{Work}}"]  # Work
        '''
    assert sync(source) == dedent(expected)


def test_text_outside_ascii_does_not_shift_the_edits() -> None:
    assert sync("async def f():\n    s = '×–é'; await g('é')\n") == "def f():\n    s = '×–é'; g('é')\n"


def test_blocks_are_dropped_and_laid_open() -> None:
    source = """
        a = 1
        # async only
        import anyio
        # end async only
        if a:
            # sync only
            # b = 2
            #
            # for c in range(b):
            #     print(c)
            # end sync only
            d = 4
        """
    expected = """
        a = 1
        if a:
            b = 2

            for c in range(b):
                print(c)
            d = 4
        """
    lines = [line.rstrip() for line in sync(source).splitlines()]
    assert lines == dedent(expected).splitlines()


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("# async only\nx = 1\n", "source.py:1: '# async only' is never ended"),
        ("x = 1\n# end async only\n", "source.py:2: '# end async only' ends no block"),
        ("# async only\n# end sync only\n", "source.py:2: '# end sync only' ends no block"),
        ("# async only\n# sync only\n", "source.py:2: '# sync only' inside the block of line 1"),
        ("# sync only\nx = 1\n# end sync only\n", "source.py:2: a line of a sync-only block is not commented out"),
        ("x = 1\nasyncio.gather()\n", "source.py:2: asyncio.gather has no sync meaning"),
        ("# async only\n# end async only\nasyncio.run()\n", "source.py:3: asyncio.run has no sync meaning"),
        ("from asyncio import sleep\n", "source.py:1: asyncio has no sync meaning"),
        ("def f() -> AsyncGenerator[int, None]: ...\n", "source.py:1: AsyncGenerator has no sync meaning"),
        ("is_async = 1\n", "source.py:1: is_async would turn into the keyword is"),
        ("async def f():\n    return f'{await g()}'\n", "source.py:2: await inside an f-string"),
        ("x: abc.Awaitable[int]\n", "source.py:1: import Awaitable by its own name"),
        ("x = 1\nf(:\n", "source.py:2: does not parse"),
    ],
)
def test_what_has_no_twin_is_refused_with_its_line(source: str, complaint: str) -> None:
    with pytest.raises(Untranslatable) as caught:
        sync(source)
    assert str(caught.value).startswith(complaint)


def test_every_kind_of_rule_is_counted_and_missed() -> None:
    used: Counter[str] = Counter()
    translate("async def f():\n    await g()\n    # async only\n    # end async only\n", "source.py", used)
    assert (used["async"], used["await"], used["# async only"]) == (1, 1, 1)
    idle = unused_rules(used)
    assert {"_async", "__aenter__", "asyncio.sleep", "Awaitable[…]", "…_async", "# sync only"} <= set(idle)
    assert not {"async", "await", "# async only"} & set(idle)


def test_layout_drops_unused_imports_sorts_them_and_formats() -> None:
    imports = "import threading, time\nfrom collections.abc import Awaitable, Callable\n"
    text = imports + "f: Callable[ [], int]\ntime.sleep( 1)\n"
    assert lay_out(text, TARGET) == (
        "import time\nfrom collections.abc import Callable\n\nf: Callable[[], int]\ntime.sleep(1)\n"
    )


def test_layout_reports_what_ruff_cannot_read() -> None:
    with pytest.raises(Untranslatable, match=r"things\.py: ruff .* failed"):
        lay_out("def f(:\n", TARGET)


def test_select_blocks_remembers_the_lines_of_the_file() -> None:
    source = generate_sync.Source("source.py", "a\n# async only\nb\n# end async only\nc\n", Counter())
    select_blocks(source)
    assert (source.text, source.numbers) == ("a\nc\n", [1, 5])


def test_differences_name_missing_orphaned_and_stale_files() -> None:
    found = {Path("stale.py"): "a\n", Path("orphan.py"): "", Path("same.py"): "c\n"}
    wanted = {Path("stale.py"): "b\n", Path("missing.py"): "", Path("same.py"): "c\n"}
    text = "".join(differences(found, wanted))
    assert "stale.py: out of date" in text
    assert "-a\n+b\n" in text
    assert "orphan.py: has no source" in text
    assert "missing.py: missing" in text
    assert "same.py" not in text


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one async file, and only the rules that it needs."""
    monkeypatch.setattr(generate_sync, "FOLDERS", {SOURCE.parent: TARGET.parent})
    monkeypatch.setattr(generate_sync, "GENERAL", ("async", "await"))
    monkeypatch.setattr(generate_sync, "NAMES", {})
    monkeypatch.setattr(generate_sync, "DOTTED", {})
    path = tmp_path / SOURCE
    path.parent.mkdir(parents=True)
    path.write_text("async def f():\n    await g()\n")
    return tmp_path


def test_check_fails_until_the_twin_is_written(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"], checkout) == 1
    assert "run make generate" in capsys.readouterr().err
    assert not (checkout / TARGET).exists()
    assert main([], checkout) == 0
    assert (checkout / TARGET).read_text().splitlines() == [
        "# Generated from python/bmdb/_async/things.py by tools/generate_sync.py: do not edit.",
        "def f():",
        "    g()",
    ]
    assert main(["--check"], checkout) == 0


def test_check_shows_a_hand_edit(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([], checkout)
    with (checkout / TARGET).open("a") as twin:
        twin.write("edited = True\n")
    capsys.readouterr()
    assert main(["--check"], checkout) == 1
    assert "-edited = True" in capsys.readouterr().out


def test_a_twin_without_a_source_is_removed_if_it_was_generated(checkout: Path) -> None:
    main([], checkout)
    (checkout / SOURCE).rename((checkout / SOURCE).with_name("others.py"))
    assert main(["--check"], checkout) == 1
    assert main([], checkout) == 0
    assert [path.name for path in (checkout / TARGET).parent.iterdir()] == ["others.py"]


def test_a_file_by_hand_among_the_twins_is_never_removed(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    by_hand = checkout / TARGET.parent / "by_hand.py"
    by_hand.parent.mkdir(parents=True)
    by_hand.write_text("x = 1\n")
    assert main([], checkout) == 2
    assert "was not generated" in capsys.readouterr().err
    assert by_hand.exists()


def test_check_fails_on_a_rule_that_matches_nothing(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main([], checkout)
    monkeypatch.setattr(generate_sync, "NAMES", {"__aiter__": "__iter__"})
    capsys.readouterr()
    assert main(["--check"], checkout) == 1
    assert "rules that match nothing in any source: __aiter__" in capsys.readouterr().err
