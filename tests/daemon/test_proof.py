"""What status shows of the trial: figures of the versions in force, and what was found in them."""

from types import SimpleNamespace

import pytest

from edgeblock.blocklist.canary import LIST
from edgeblock.daemon.proof import Proof


@pytest.fixture
def said():
    return []


@pytest.fixture
def proof(said):
    return Proof(1.0, SimpleNamespace(error=lambda event, **more: said.append((event, more["problem"]))))


def told(problem="", fault="", refused=False, **lists):
    return {"lists": {LIST if name == "canary" else name: counts for name, counts in lists.items()},
            "problem": problem, "fault": fault, "refused": refused}


def lists(*names):
    return [{"name": name} for name in names]


def test_figures_are_of_the_versions_in_force(proof):
    assert proof.status()["state"] == "waiting"
    proof.take(told(canary=[1, 1, 1, 0], court=[5, 5, 4, 0], pages=[2, 2, 2, 0]), lists("court", "pages"), {"court"})
    proof.add(told(court=[10, 10, 10, 0]))
    status = proof.status()
    assert (status["state"], status["tried"], status["held"], status["beside"]) == ("ok", 18, 18, 17)
    assert (status["lists"], status["of"]) == (2, 2)
    proof.take(told(court=[3, 3, 3, 0]), lists("court", "new"), {"court", "new", "pages"})
    status = proof.status()
    assert (status["tried"], status["lists"], status["of"]) == (4, 1, 2)


def test_what_was_refused_changes_no_figure(proof, said):
    proof.take(told(court=[5, 5, 4, 0]), lists("court"), {"court"})
    proof.take(told("rule 7 passes", refused=True, court=[9, 8, 9, 0]), lists("court"), set())
    assert proof.status() | {"refused": 0} == proof.status() | {"refused": 0, "tried": 5, "held": 5, "state": "ok"}
    assert proof.status()["refused"] == 1 and said == []


def test_what_is_found_afterwards_is_said_once_and_stays_until_other_rules_come(proof, said):
    proof.take(told(court=[5, 5, 4, 0]), lists("court"), {"court"})
    proof.add(told("rule 7 passes", court=[2, 1, 1, 0]))
    proof.add(told("rule 7 passes"))
    assert said == [("the rules in force were tried and do not hold", "rule 7 passes")]
    assert proof.status()["state"] == "failed" and proof.status()["problem"] == "rule 7 passes"
    proof.take(told(), lists("court"), set())
    assert proof.status()["state"] == "failed"
    proof.take(told(court=[4, 4, 4, 0]), lists("court"), {"court"})
    assert proof.status()["state"] == "ok"


def test_a_fault_of_the_trial_is_no_failure_of_the_rules(proof, said):
    proof.take(told(fault="a fault"), lists("court"), {"court"})
    assert proof.status()["state"] == "not tried" and said[0][1] == "a fault"


def test_off_is_said():
    assert Proof(0.0, None).status()["state"] == "off"
