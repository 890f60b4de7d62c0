"""A page as a reader finds it: headings, panels, links, labels; what a browser would show of its text."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"br", "col", "hr", "img", "input", "link", "meta", "path", "rect"}


class Element:
    """An element with its attributes and what is in it."""

    def __init__(self, name: str, attributes: dict[str, str]) -> None:
        self.name = name
        self.attributes = attributes
        self.inside: list[Element | str] = []

    @property
    def text(self) -> str:
        """All text in it, with each run of white space as one space."""
        parts = (part if isinstance(part, str) else part.text for part in self.inside)
        return " ".join("".join(parts).split())

    def all(self, name: str = "", **attributes: str) -> list[Element]:
        """The elements inside, at any depth, of this name and with these attributes; `class_` is one of the classes."""
        found = []
        for part in self.inside:
            if isinstance(part, str):
                continue
            if name in ("", part.name) and all(part._has(key, value) for key, value in attributes.items()):
                found.append(part)
            found += part.all(name, **attributes)
        return found

    def one(self, name: str = "", **attributes: str) -> Element:
        """The only such element."""
        (found,) = self.all(name, **attributes)
        return found

    def _has(self, key: str, value: str) -> bool:
        if key == "class_":
            return value in self.attributes.get("class", "").split()
        return self.attributes.get(key.replace("_", "-")) == value

    @property
    def links(self) -> dict[str, str]:
        """Where the links inside lead, by their text."""
        return {link.text: link.attributes["href"] for link in self.all("a")}

    @property
    def rows(self) -> list[list[str]]:
        """The cells of the table inside, as text."""
        return [
            [cell.text for cell in row.inside if isinstance(cell, Element)]
            for body in self.all("tbody")
            for row in body.all("tr")
        ]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        made = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].inside.append(made)
        if tag not in VOID:
            self.open.append(made)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].inside.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag in {"p", "li", "option"} and self.open[-1].name != tag:
            return
        ended = self.open.pop()
        assert ended.name == tag, f"<{ended.name}> is ended by </{tag}>"

    def handle_data(self, data: str) -> None:
        self.open[-1].inside.append(data)


def read(html: str) -> Element:
    """The page. Fails where its elements do not nest."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == [reader.root], f"<{reader.open[-1].name}> is not ended"
    return reader.root
