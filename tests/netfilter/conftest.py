"""One Triple for a module's live tests, and the back ends that each of them runs on."""

import pytest
from triple import Triple


@pytest.fixture(scope="module")
def triple():
    one = Triple()
    try:
        yield one
    finally:
        one.close()
