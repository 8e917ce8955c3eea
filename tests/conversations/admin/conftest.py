import pytest

from tests.conversations.admin.browser import staff
from tests.conversations.admin.chromium import close_chromium


@pytest.fixture(scope="module", autouse=True)
def _chromium_of_this_module():
    yield
    close_chromium()


@pytest.fixture
def viewer():
    return staff("view_conversation", name="viewer")


@pytest.fixture
def ops():
    return staff(role="operator")
