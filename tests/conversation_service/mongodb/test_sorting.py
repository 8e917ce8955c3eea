"""A sorted page is read from the index, and every query keeps its result."""

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.models import Session
from django.db import connections
from django.db.models import Count, Exists, F, Max, OuterRef, Q, Subquery
from django.db.models.functions import Length, Lower

from tests.conversation_service.mongodb.plans import plan

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def many_users():
    User.objects.bulk_create(
        User(
            username=f"user{number:02}",
            first_name=["Ada", "bob", "", "Zoë"][number % 4],
            is_staff=number % 3 == 0,
            last_login=START + timedelta(days=number % 5) if number % 2 else None,
        )
        for number in range(40)
    )


@pytest.fixture
def stock():
    """An alias for the same database through the unchanged backend."""
    connections.settings["stock"] = connections.settings["default"] | {
        "ENGINE": "django_mongodb_backend"
    }
    yield "stock"
    connections["stock"].close_pool()
    del connections["stock"], connections.settings["stock"]


INDEXED_PAGES = {
    "objects": lambda: User.objects.order_by("username")[:5],
    "backwards": lambda: User.objects.order_by("-username")[:5],
    "by primary key": lambda: User.objects.order_by("pk")[:5],
    "values": lambda: User.objects.order_by("username").values("pk", "username", "email")[:5],
    "some columns": lambda: User.objects.order_by("username").only("email")[:5],
    "annotated": lambda: User.objects.order_by("username").annotate(n=Length("email"))[:5],
    "filtered": lambda: User.objects.filter(username__gte="user10").order_by("username")[:5],
}


@pytest.mark.parametrize("page", INDEXED_PAGES.values(), ids=INDEXED_PAGES)
def test_a_page_reads_only_its_own_rows(many_users, page):
    found = plan(page())

    assert found.documents_examined <= 5
    assert "IXSCAN" in found.stages
    assert "SORT" not in found.stages


def test_a_later_page_reads_the_rows_before_it(many_users):
    found = plan(User.objects.order_by("username")[10:15])

    assert found.documents_examined <= 15
    assert "SORT" not in found.stages


def test_a_range_sorted_by_the_same_index_needs_no_sort():
    Session.objects.bulk_create(
        Session(session_key=str(number), session_data="", expire_date=START + timedelta(number))
        for number in range(40)
    )

    found = plan(Session.objects.filter(expire_date__gt=START).order_by("-expire_date")[:5])

    assert found.documents_examined <= 5
    assert "SORT" not in found.stages


STAFF = User.objects.filter(is_staff=True)

SHAPES = {
    "plain": lambda: User.objects.order_by("first_name", "-username")[3:9],
    "reversed": lambda: User.objects.order_by("username").reverse()[:5],
    "open slice": lambda: User.objects.order_by("username")[35:],
    "not sorted": lambda: User.objects.order_by().filter(username="user07"),
    "values": lambda: User.objects.order_by("-username").values("first_name")[:5],
    "flat values": lambda: User.objects.order_by("username").values_list("email", flat=True)[:5],
    "sorted by a selected alias": lambda: User.objects.values("pk", name=F("username")).order_by(
        "-name"
    )[:5],
    "only": lambda: User.objects.only("email").order_by("-username")[:5],
    "nulls last": lambda: User.objects.order_by(F("last_login").asc(nulls_last=True), "pk")[15:25],
    "nulls first": lambda: User.objects.order_by(F("last_login").desc(nulls_first=True), "pk")[:25],
    "nulls by default": lambda: User.objects.order_by("last_login", "pk")[15:25],
    "by an expression": lambda: User.objects.order_by(Lower("first_name"), "pk")[5:25],
    "by an annotation": lambda: (
        User.objects.annotate(n=Length("first_name")).order_by("-n", "pk").values("n", "pk")[:5]
    ),
    "annotated, by a column": lambda: (
        User.objects.annotate(n=Length("first_name")).order_by("-username").values("n", "pk")[:5]
    ),
    "filtered by an annotation": lambda: (
        User.objects.annotate(n=Length("first_name")).filter(n=3).order_by("-username")[:5]
    ),
    "grouped, by the count": lambda: (
        User.objects.values("first_name").annotate(n=Count("pk")).order_by("-n", "first_name")
    ),
    "grouped, by the key": lambda: (
        User.objects.values("first_name").annotate(n=Max("username")).order_by("-first_name")[:3]
    ),
    "distinct": lambda: User.objects.values("first_name").order_by("first_name").distinct()[1:3],
    "dates": lambda: User.objects.dates("last_login", "day", order="DESC"),
    "by a joined column": lambda: Permission.objects.order_by(
        "content_type__app_label", "codename"
    )[2:9],
    "default order, joined": lambda: Permission.objects.all()[2:9],
    "joined, by a column": lambda: Permission.objects.select_related("content_type").order_by(
        "-codename"
    )[:6],
    "filtered by a joined column": lambda: Permission.objects.filter(
        content_type__model="user"
    ).order_by("-codename")[:3],
    "union": lambda: STAFF.union(User.objects.filter(first_name="bob")).order_by("-username")[2:9],
    "union of pages": lambda: (
        STAFF.order_by("username")[:3]
        .union(STAFF.order_by("-username")[:3], all=True)
        .order_by("username")
    ),
    "in a subquery": lambda: User.objects.filter(
        pk__in=STAFF.order_by("-username").values("pk")[:4]
    ).order_by("username"),
    "a scalar subquery": lambda: (
        User.objects.annotate(
            peer=Subquery(
                User.objects.filter(first_name=OuterRef("first_name"))
                .order_by("-username")
                .values("username")[:1]
            )
        )
        .order_by("username")
        .values_list("username", "peer")[:6]
    ),
    "exists": lambda: User.objects.filter(
        Exists(User.objects.filter(is_staff=True, first_name=OuterRef("first_name")))
    ).order_by("-username")[:6],
    "negated": lambda: User.objects.exclude(Q(first_name="Ada") | Q(is_staff=True)).order_by("pk"),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_every_query_has_equal_results_without_the_early_sort(many_users, stock, shape):
    ours, theirs = list(shape()), list(shape().using(stock))

    assert ours == theirs
    assert ours


ENDS = {
    "first": lambda users: users.order_by("-username").first(),
    "last": lambda users: users.order_by("first_name", "username").last(),
    "latest": lambda users: users.filter(last_login__isnull=False).latest("last_login", "pk"),
    "count of a page": lambda users: users.order_by("username")[35:50].count(),
    "sum over a page": lambda users: users.order_by("username")[:10].aggregate(
        Max("username"), n=Count("pk")
    ),
    "exists": lambda users: users.order_by("username")[39:].exists(),
    "by name": lambda users: users.in_bulk(["user01", "user02"], field_name="username"),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_random_queries_have_equal_results_without_the_early_sort(many_users, stock, end):
    assert end(User.objects.all()) == end(User.objects.using(stock).all())
