"""The code that an appeal quotes: short, the same for everybody on that day, and wrong when it is mistyped."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeblock.commands.check import EXAMPLES
from edgeblock.enforce.reference import ALPHABET, DAYS, EXAMPLE, SIZE, code_of, date_of, day_of, read_code

DAY = day_of(1_796_083_200.0)
RULES = st.integers(0, 0xFFFFFFFF).map("{:08x}".format)


def test_the_example_is_a_code_wherever_it_stands():
    assert read_code(EXAMPLE, DAY) == ("9f3c21aa", DAY)
    page = Path(__file__).parents[2].joinpath("docs/block-page.md").read_text()
    for text in (EXAMPLES, page):
        assert set(re.findall(r"\b[0-9A-Z]{5}-[0-9A-Z]{5}\b", text)) == {EXAMPLE}


def test_a_day():
    assert str(date_of(DAY)) == "2026-12-01"


@given(RULES, st.integers(DAY, DAY + 20_000), st.integers(-1, DAYS - 2))
def test_it_leads_back(rule, day, later):
    code = code_of(rule, day)
    assert len(code) == SIZE and set(code) <= {*ALPHABET, "-"} and code[5] == "-"
    assert read_code(code, day + later) == (rule, day)


@given(RULES, st.integers(0, 9), st.sampled_from(ALPHABET))
def test_any_wrong_character_is_noticed(rule, at, other):
    plain = code_of(rule, DAY).replace("-", "")
    if plain[at] != other:
        with pytest.raises(ValueError, match="mistyped"):
            read_code(plain[:at] + other + plain[at + 1:], DAY)


@given(RULES, st.integers(0, 9), st.integers(0, 9))
def test_any_two_that_have_changed_places_are_noticed(rule, one, other):
    letters = list(code_of(rule, DAY).replace("-", ""))
    letters[one], letters[other] = letters[other], letters[one]
    if letters[one] != letters[other]:
        with pytest.raises(ValueError, match="mistyped"):
            read_code("".join(letters), DAY)


def test_it_may_be_typed_as_it_was_heard():
    for rule, has in (("00000021", "0"), ("08000000", "1")):
        said = code_of(rule, DAY)
        assert has in said
        for typed in (said.lower(), said.replace("-", " "), said.replace("0", "o").replace("1", "l"),
                      f" {said.replace('1', 'I')} "):
            assert read_code(typed, DAY) == (rule, DAY)


@pytest.mark.parametrize(("typed", "why"), [
    ("7K3MQ-2XD9", "has 9 characters where a code has 10"), ("", "has 0 characters"),
    ("7K3MQ-2XD9U", "has a character that no code has: 'U'"), ("7K3MQ-2XD9é", "'É'")])
def test_what_is_no_code(typed, why):
    with pytest.raises(ValueError, match=why):
        read_code(typed, DAY)


def test_without_a_rule_it_is_a_code_all_the_same():
    assert read_code(code_of(None, DAY), DAY) == ("00000000", DAY)
