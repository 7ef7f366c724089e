"""The code on a block page that an appeal can quote: which rule, and on which day. Nothing of a subscriber.

In: a rule id and a day. Out: ten characters of Crockford's base 32, which has no I, L, O and U, as two groups of
five; and back. 32 bits of rule and 13 of day make nine characters, the tenth checks them: the ten, as coefficients
over GF(32), make a polynomial with a root. So any one wrong character, and any two that have changed places, are
noticed.
"""

from datetime import date

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
READ = {letter: value for value, letter in enumerate(ALPHABET)} | {"O": 0, "I": 1, "L": 1}
SIZE = 11                       # characters, with the hyphen
DAY_BITS = 13                   # 22 years: the day that is meant is the last such one
DAYS = 1 << DAY_BITS
EPOCH = date(1970, 1, 1).toordinal()
SECONDS = 86_400
EXAMPLE = "KWY23-AM9MS"         # one that is right: 9f3c21aa on 2026-12-01


def day_of(now: float) -> int:
    """The day (UTC) since 1970 of a time in Unix seconds."""
    return int(now // SECONDS)


def date_of(day: int) -> date:
    return date.fromordinal(EPOCH + day)


def code_of(rule: str | None, day: int) -> str:
    """The code for a rule id, eight hex digits, and a day since 1970."""
    number = int(rule or "0", 16) << DAY_BITS | day % DAYS
    digits = [number >> 5 * place & 31 for place in range(8, -1, -1)]
    digits.append(check(digits))
    text = "".join(ALPHABET[digit] for digit in digits)
    return f"{text[:5]}-{text[5:]}"


def read_code(text: str, today: int) -> tuple[str, int]:
    """Rule id and day of a code as somebody has typed it; `today` is the day on which it is asked.

    Raises:
        ValueError: it is none; the message is the end of a sentence.
    """
    plain = [letter for letter in text.upper() if letter not in "- "]
    if strange := next((letter for letter in plain if letter not in READ), ""):
        raise ValueError(f"has a character that no code has: {strange!r}")
    if len(plain) != SIZE - 1:
        raise ValueError(f"has {len(plain)} characters where a code has {SIZE - 1}")
    digits = [READ[letter] for letter in plain]
    if check(digits[:-1]) != digits[-1]:
        raise ValueError("is mistyped: its characters do not go together")
    number = 0
    for digit in digits[:-1]:
        number = number << 5 | digit
    # A clock may be a day ahead.
    day = today + 1 - (today + 1 - number) % DAYS
    return f"{number >> DAY_BITS:08x}", day


def check(digits: list[int]) -> int:
    """What makes the sum of digit times alpha to the power of its place zero, in GF(32) by x^5 + x^2 + 1."""
    found = 0
    for digit in digits:
        found = times_alpha(found ^ digit)
    return found


def times_alpha(value: int) -> int:
    value <<= 1
    return value ^ 0b100101 if value & 32 else value
