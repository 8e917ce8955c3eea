import pytest
from django.contrib.auth.models import Group, User
from django.contrib.sessions.models import Session
from django.db import IntegrityError, connection, models
from django.db.models import Q, UniqueConstraint
from django.test.utils import isolate_apps
from django.utils import timezone
from django_mongodb_backend.fields import EmbeddedModelField
from django_mongodb_backend.models import EmbeddedModel

from tests.conversation_service.mongodb.plans import plan


@pytest.fixture
def ticket(mongo):
    """A model with nullable unique fields, which Django's own apps do not have."""
    with isolate_apps("conversation_service"):

        class Origin(EmbeddedModel):
            reference = models.CharField(max_length=20, unique=True)

            class Meta:
                app_label = "conversation_service"

        class Ticket(models.Model):  # noqa: DJ008
            code = models.CharField(max_length=20, null=True, unique=True)  # noqa: DJ001
            serial = models.IntegerField(null=True, unique=True)
            holder = models.CharField(max_length=20, default="")
            is_open = models.BooleanField(default=False)
            origin = EmbeddedModelField(Origin, null=True)

            class Meta:
                app_label = "conversation_service"
                constraints = [
                    UniqueConstraint(fields=["holder"], condition=Q(is_open=True), name="one_open")
                ]

        Ticket.Origin = Origin
        with connection.schema_editor() as editor:
            editor.create_model(Ticket)
        yield Ticket
        mongo.drop_collection(Ticket._meta.db_table)


def test_looking_a_user_up_by_name_reads_one_document():
    User.objects.bulk_create(User(username=f"user{number}") for number in range(20))

    found = plan(User.objects.filter(username="user7"))

    assert found.documents_examined == 1
    assert "COLLSCAN" not in found.stages


def test_looking_a_session_up_by_key_reads_one_document():
    Session.objects.bulk_create(
        Session(session_key=str(number), session_data="", expire_date=timezone.now())
        for number in range(20)
    )

    found = plan(Session.objects.filter(session_key="7"))

    assert found.documents_examined == 1
    assert "COLLSCAN" not in found.stages


def test_names_stay_unique():
    Group.objects.create(name="editors")

    with pytest.raises(IntegrityError):
        Group.objects.create(name="editors")


@pytest.mark.parametrize("lookup", [{"code": "c7"}, {"serial": 7}, {"code__in": ["c7", "none"]}])
def test_looking_up_by_a_nullable_unique_field_reads_one_document(ticket, lookup):
    ticket.objects.bulk_create(ticket(code=f"c{n}", serial=n, holder=str(n)) for n in range(20))

    found = plan(ticket.objects.filter(**lookup))

    assert found.documents_examined == 1
    assert "COLLSCAN" not in found.stages


def test_many_documents_may_lack_a_nullable_unique_field(ticket):
    ticket.objects.create()
    ticket.objects.create()
    ticket.objects.create(serial=-(2**40))

    assert ticket.objects.filter(code=None).count() == 3


@pytest.mark.parametrize("taken", [{"code": ""}, {"serial": -(2**40)}])
def test_the_smallest_values_are_unique(ticket, taken):
    ticket.objects.create(**taken)

    with pytest.raises(IntegrityError):
        ticket.objects.create(**taken)


def test_a_unique_field_inside_an_absent_document_conflicts_with_none(ticket):
    ticket.objects.create()
    ticket.objects.create()
    ticket.objects.create(origin=ticket.Origin(reference="x"))

    with pytest.raises(IntegrityError):
        ticket.objects.create(origin=ticket.Origin(reference="x"))


def test_a_constraint_keeps_its_own_condition(ticket):
    ticket.objects.create(holder="ada")
    ticket.objects.create(holder="ada")
    ticket.objects.create(holder="ada", is_open=True)

    with pytest.raises(IntegrityError):
        ticket.objects.create(holder="ada", is_open=True)
