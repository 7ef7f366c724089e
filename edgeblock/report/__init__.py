"""Evidence for people: counts that outlive the daemon, and the report that is made of them.

In: what the daemon counts (pending.py, store.py), the ledger, the lists in force. Out: a report as HTML, JSON or CSV,
and what of the lists is dead. Never here: an import of the daemon, a subscriber, a name that somebody asked for.
"""
