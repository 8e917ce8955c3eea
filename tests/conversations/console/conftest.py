import pytest

from tests.conversations.console.browser import staff


@pytest.fixture
def viewer():
    return staff("view_conversation", name="viewer")


@pytest.fixture
def ops():
    return staff(role="operator")
