import pytest
from django.contrib.auth.models import User


@pytest.fixture(autouse=True)
def some_users():
    for name in ["Ada", "a.*(", "bob"]:
        User.objects.create(username=name)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        pytest.param("ADA", ["Ada"], id="another case"),
        pytest.param("A.*(", ["a.*("], id="the characters of a pattern"),
        pytest.param(".*", [], id="a pattern that would match all"),
        pytest.param("ad", [], id="a part"),
    ],
)
def test_iexact_matches_the_whole_text_literally(wanted, found):
    names = User.objects.filter(username__iexact=wanted).values_list("username", flat=True)

    assert list(names) == found
