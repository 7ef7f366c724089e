"""A page of docs/ as a manual page: to_roff(TEXT).

In: Markdown as our pages are written (headings, paragraphs, lists, tables, code). Out: the lines of roff below the
head. A table is a list: its first column, and beside it the others. Links are their words. Never here: a parser;
markdown-it is one.
"""

from collections.abc import Iterator

from markdown_it import MarkdownIt
from markdown_it.token import Token


def escaped(text: str) -> str:
    """Text as roff shows it."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in text.split("\n"))


def words(token: Token) -> str:
    """An inline token: code in bold, the rest as it is."""
    parts = []
    for one in token.children or []:
        if one.type == "code_inline":
            parts.append(f"\\fB{escaped(one.content)}\\fR")
        elif one.type == "html_inline":
            parts.append({"<code>": "\\fB", "</code>": "\\fR"}.get(one.content, ""))
        elif one.type in ("softbreak", "hardbreak"):
            parts.append("\n")
        elif one.content:
            parts.append(escaped(one.content))
    return "".join(parts)


def to_roff(text: str) -> Iterator[str]:
    tokens = iter(MarkdownIt().enable("table").parse(text))
    row: list[str] = []
    head: list[str] = []
    for token in tokens:
        if token.type == "heading_open":
            title = words(next(tokens))
            if token.tag != "h1":
                yield f"{'.SH' if token.tag == 'h2' else '.SS'} {title}"
        elif token.type in ("fence", "code_block"):
            yield from (".PP", ".nf", escaped(token.content.rstrip("\n")), ".fi")
        elif token.type == "list_item_open":
            yield f".IP {token.info}{token.markup} 4" if token.info else ".IP \\(bu 2"
        elif token.type == "paragraph_open" and not token.hidden:
            yield ".PP"
        elif token.type == "tr_open":
            row = []
        elif token.type == "tr_close":
            if head:
                # Where the first cell is empty the row goes on with the one above.
                yield from ((".TP", row[0]) if row[0] else (".IP",))
                yield "; ".join(f"{name}: {cell}" for name, cell in zip(head[1:], row[1:], strict=True) if cell)
            else:
                head = row
        elif token.type == "table_close":
            head = []
            yield ".PP"
        elif token.type == "inline":
            yield words(token)
        elif token.type in ("th_open", "td_open"):
            row.append(words(next(tokens)))
