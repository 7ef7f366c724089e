"""Every list of a directory in, as the daemon takes a list that it has never seen; for who asks for all or none.

In: the lists of a directory, the terms of this box. Out: parts of each, and why the others are refused. Never here:
a last good version, which is the daemon's, or a file written.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from edgeblock.blocklist.clients import ClientFiles, give
from edgeblock.blocklist.directory import Finding, ListFile, fault_of
from edgeblock.blocklist.intake import Refused, Terms, take
from edgeblock.blocklist.parts import Compiled
from edgeblock.errors import ListError


def take_all(files: list[ListFile], terms: Terms, now: float,
             tell: Callable[[str, int], None] | None = None
             ) -> tuple[list[tuple[ListFile, Compiled]], list[Finding]]:
    """All lists that can be taken, by name, with the parts of each, and why the others cannot. `tell` hears of which
    file how many bytes more have been read."""
    taken: list[tuple[ListFile, Compiled]] = []
    whom = ClientFiles(terms.rules.directory, terms.key, {})
    whom.look({source.settings.clients_file for source in files} - {""})
    refused = [finding for finding, _ in whom.refused.values() if finding and finding.line]
    for source in files:
        name = source.path.name
        if tell:
            tell(name, 0)
        try:
            if why := whom.why_without(source.settings):
                raise Refused([Finding(name, 0, why)])
            made = take(source, terms, None, now, partial(tell, name) if tell else None)
        except Refused as problem:
            refused += problem.findings
        except ListError as problem:
            refused.append(Finding(name, 0, str(problem).removeprefix(f"{name}: ")))
        except Exception as fault:          # one list's fault is one list's
            refused.append(Finding(name, 0, fault_of(fault)))
        else:
            made.lists = [replace(made.lists[0], expired=source.expired(now))]
            if (one := whom.of(source.settings.clients_file)) is not None:
                give(made.lists[0], one)
                made.client_sets = [one]
            taken.append((source, made))
    return taken, refused
