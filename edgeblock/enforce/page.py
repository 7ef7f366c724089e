"""The block page: the one that ships, filled in, or the operator's own file.

In: the [reply] settings. Out: the bytes of an HTML document in UTF-8, made once, never per client. Every value is
escaped; no value of a client or of a list ever reaches the page. A page that cannot be used is a ConfigError of
one line.
"""

import html
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

from edgeblock.config import Reply
from edgeblock.errors import ConfigError

MAX_PAGE = 32 * 1024    # bytes: it is sent in one burst, without waiting for acknowledgements, as 28 segments

REASON = ("The address you asked for is on a list of pages that must not be reached: their content has been found "
          "to be illegal, or a court or a public authority has ordered the block.")

# Neutral, free of charge, and not tied to one kind of list or one country: what to call it, and where it is.
HELP = (
    ("A helpline in your country, for any worry", "https://findahelpline.com/"),
    ("Help for children and young people", "https://childhelplineinternational.org/"),
    ("Help with sexual thoughts or behaviour that worry you, your own or someone else's",
     "https://www.stopitnow.org.uk/"),
)

_LINK = re.compile(r"https?://[^\s]+", re.IGNORECASE)
_MAIL = re.compile(r"[^\s@<>]+@[^\s@<>]+\.[^\s@<>]+")


def load(reply: Reply) -> bytes:
    """The page for these settings: the file `reply.page`, or the page that ships.

    Raises ConfigError if the file is missing, empty, larger than MAX_PAGE or not UTF-8.
    """
    if reply.page is None:
        return render(provider=reply.provider, contact=reply.contact)
    path = Path(reply.page)
    try:
        with open(path, "rb") as file:
            body = file.read(MAX_PAGE + 1)
    except OSError as problem:
        raise ConfigError(f"reply.page: {path}: cannot be read: {problem.strerror}") from None
    if len(body) > MAX_PAGE:
        raise ConfigError(f"reply.page: {path}: larger than {MAX_PAGE // 1024} kB; a block page must be short")
    if not body.strip():
        raise ConfigError(f"reply.page: {path}: empty; leave the key out to get the page that ships")
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise ConfigError(f"reply.page: {path}: not UTF-8 at byte {problem.start}") from None
    return body


def render(*, provider: str = "", contact: str = "", reason: str = REASON,
           help_links: Sequence[tuple[str, str]] = HELP) -> bytes:
    """The page that ships, in UTF-8.

    `provider` is who blocks and `contact` where to complain: a URL or a mail address becomes a link, anything else
    stays text. `help_links` are pairs of a text and a URL, mail address or telephone number.
    """
    template = Template(files("edgeblock.enforce").joinpath("page.html").read_text("utf-8"))
    if contact:
        complaint = f"Write to {_linked(contact)}."
    else:
        complaint = "Write to the customer service of your internet provider."
    helps = "\n".join(f"<li>{html.escape(text)}: {_linked(where)}</li>" for text, where in help_links)
    return template.substitute(
        provider=html.escape(provider) or "your internet provider",
        reason=html.escape(reason),
        complaint=complaint,
        help=helps,
    ).encode("utf-8")


def _linked(where: str) -> str:
    # Only what is plainly a web or mail address becomes a link, so that no other scheme ever does.
    text = html.escape(where)
    if _LINK.fullmatch(where):
        return f'<a href="{text}">{text}</a>'
    if _MAIL.fullmatch(where):
        return f'<a href="mailto:{text}">{text}</a>'
    return text
