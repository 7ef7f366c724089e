"""What a list tells those whom it blocks, where that is not what [reply] says for all: its page, reason, contact,
status and redirect.

In: the settings of a list and the files that they name, from anybody who may write to the directory. Out: a Notice,
which the list's record carries into the snapshot, as what JSON has; no larger than PAGE_MAX for a page (of
all lists of one owner: owners.py). Never here: HTML that is made.
"""

import os

from edgeblock.blocklist.directory import ListFile, open_regular
from edgeblock.blocklist.pages import PAGE_MAX, by_language, size_with
from edgeblock.blocklist.parts import Notice
from edgeblock.errors import ListError


def read_notice(source: ListFile) -> Notice:
    """What this list tells; {} where it says nothing of its own.

    Raises:
        ListError: one of its pages cannot be used.
    """
    settings = source.settings
    told: Notice = {"pages": read_pages(source), "reason": dict(settings.reason), "contact": settings.contact,
                    "status": settings.status, "redirect": settings.redirect}
    return {key: value for key, value in told.items() if value}


def read_pages(source: ListFile) -> dict[str, str]:
    # Everybody is shown a page: it is of who writes the list or its settings, or of root, whoever may read it here.
    pages, bodies = source.pages, []
    owners = {0, *(state.st_uid for state in (source.state, source.settings_state) if state)}
    for language, path in pages:
        with open_regular(path, alone=True) as file:
            if os.fstat(file.fileno()).st_uid not in owners:
                raise ListError(f"{path.name}: is neither of who owns this list or its settings nor of root; copy it "
                                "as one of them")
            try:
                bodies.append((language, file.read(PAGE_MAX + 1)))
            except OSError as error:
                raise ListError(f"{path.name}: cannot be read: {error.strerror}") from None
    try:
        made = by_language(bodies)
    except ValueError as problem:
        number, why = problem.args
        raise ListError(f"{pages[number][1].name}: is {why}") from None
    own = {"reason": max((text for _, text in source.settings.reason), key=len, default=""),
           "contact": source.settings.contact}
    values = {gap: value for gap, value in own.items() if value}
    for (_, path), (_, body) in zip(pages, bodies, strict=True):
        if size_with(body.decode(), values) > PAGE_MAX:
            raise ListError(f"{path.name}: is longer than {PAGE_MAX // 1024} kB with the list's own reason and "
                            "contact put in; shorten them, or have them in it less often")
    return made
