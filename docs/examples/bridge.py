#!/usr/bin/env python3
"""A bridge between one platform and edgeblock: its tickets become orders, its tickets get what became of them.

    bridge.py TICKETS.json RULES_DIRECTORY ANSWERS.json

In: tickets as this platform has them, a JSON array of {"ticket", "asked_by", "asked_at", "event_start", "event_end",
"fqdn": [...], "ipv4": [...], "ipv6": [...]}. Out: RULES_DIRECTORY/platform-TICKET.order.json for each, by rename; and
what edgeblock has answered so far, for the platform: {ticket: {value: [state, since, reason]}}. A ticket that has
gone asks for nothing any more; one that is no ticket is refused alone. Run it every minute: it changes no file that
need not change. Another platform needs other words in `why_bad`, `order_of` and `answers_of`, no more.
"""

import json
import os
import re
import sys
from pathlib import Path

KINDS = {"fqdn": "host", "ipv4": "address", "ipv6": "address"}
NEEDED = ("ticket", "asked_by", "asked_at", "event_start", "event_end")
START, END = "platform-", ".order.json"


def why_bad(ticket):
    """Why a ticket cannot become an order; "" where it can."""
    for key in NEEDED:
        if not isinstance(ticket.get(key), str):
            return f"has no {key}"
    for field in KINDS:
        if not isinstance(ticket.get(field, []), list):
            return f"has no list in {field}"
    return "" if re.fullmatch(r"[A-Za-z0-9-]{1,60}", ticket["ticket"]) else "cannot be the name of a file"


def order_of(ticket):
    """An order as edgeblock reads it; an item's id is its place in the ticket, so that no answer repeats a name."""
    items = [{"id": f"{field}-{number}", "kind": kind, "value": value}
             for field, kind in KINDS.items() for number, value in enumerate(ticket.get(field, []))]
    return {"version": 1, "order": ticket["ticket"], "authority": ticket["asked_by"], "received": ticket["asked_at"],
            "approved_by": "bridge", "from": ticket["event_start"], "until": ticket["event_end"], "items": items}


def answers_of(ticket, outcome):
    """What became of each value of a ticket; "received" where edgeblock has not answered it yet."""
    told = {one.get("id"): one for one in outcome["items"]}
    whole = outcome.get("refused", {}).get("reason")
    return {str(value): [one.get("state", "refused" if whole else "received"), one.get("since"),
                         one.get("reason", whole)]
            for field in KINDS if isinstance(ticket.get(field), list) for number, value in enumerate(ticket[field])
            for one in [told.get(f"{field}-{number}", {})]}


def read(path):
    """What edgeblock has answered; nothing yet where it has not."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {"items": []}


def put(path, value):
    """A file that is there whole or not at all, and is left alone where it says so already."""
    text = json.dumps(value, indent=1) + "\n"
    if not path.exists() or path.read_text() != text:
        new = path.with_name(f".{path.name}.new")
        new.write_text(text)
        os.rename(new, path)


def main(tickets_file, rules, answers_file):
    answers = {}
    for ticket in json.loads(Path(tickets_file).read_text()):
        ticket = ticket if isinstance(ticket, dict) else {}
        name = str(ticket.get("ticket"))
        if why := why_bad(ticket):
            print(f"{tickets_file}: ticket {name!r} {why}", file=sys.stderr)
            answers[name] = answers_of(ticket, {"items": [], "refused": {"reason": why}})
            continue
        put(Path(rules, f"{START}{name}{END}"), order_of(ticket))
        answers[name] = answers_of(ticket, read(Path(rules, f"{START}{name}.outcome.json")))
    for path in Path(rules).glob(f"{START}*{END}"):
        if (name := path.name[len(START):-len(END)]) not in answers:
            put(path, {"version": 1, "order": name, "items": []})
    put(Path(answers_file), answers)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
