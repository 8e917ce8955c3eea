"""Declarations on model fields, beyond Django's own options."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Self, TypeVar

from django.conf import settings
from django.db.models import DateTimeField, Field, Model
from django_mongodb_backend.fields import EmbeddedModelField

# As a default: the time at which the conversation was created.
CREATION_TIME: Any = object()
NO_DEFAULT: Any = object()

F = TypeVar("F", bound=Field)


@dataclass(frozen=True)
class Ceiling:
    """The maximum that users can set in this deployment for some models.

    It applies to the model `start` or, with `is_prefix`, to all models that begin so. The empty
    prefix is for every model, and for a conversation without a model.
    """

    start: str
    is_prefix: bool
    maximum: int

    @classmethod
    def parse(cls, model: str, maximum: int) -> Self:
        return cls(model.removesuffix("*"), model.endswith("*"), maximum)

    def applies_to(self, model: str | None) -> bool:
        name = model or ""
        return name.startswith(self.start) and (self.is_prefix or name == self.start)


@dataclass(frozen=True, kw_only=True)
class Entries:
    """The entries of a JSON object: texts by key, with `any_scalar` also numbers and booleans.

    `key` is a regular expression for a whole key, `max_length` the maximum length of a text. A
    PATCH merges by key; a null removes a key.
    """

    key: str
    max_keys: int
    max_length: int
    any_scalar: bool = False


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """The use of a field in the API, the database's validator and the console.

    `is_public`: the API and an export show the field, and an import accepts it.
    `is_editable`: users set it. Create and PATCH accept it, a revert restores it, a duplicate
    copies it, and the console shows it.
    `default`: the value that a reader sees if a stored document lacks the field, and that a new
    conversation gets.
    `minimum`, `maximum`: inclusive bounds for a number, valid for every stored value.
    `ceiling_variable`: the variable with the maximum that users can set in this deployment, for
    models without a maximum in MODEL_CEILINGS. Both can change at a restart; stored values above
    a maximum stay valid.
    `max_items`: the maximum length for a list, or number of objects in a JSONField. `pattern`: a
    regular expression for the whole string, or for each item in a list. `choices`: the possible
    values, or the possible items in a list, which are distinct and in this order; stored items can
    be from a later release.
    `embedded`: the model that declares the parts in a JSONField. `entries`: the bounds for a
    JSONField with keys that clients choose.
    `since`: the release that added the field, if later than 0.1.0. Older exports lack the field.
    `help`: the description in the API documentation.
    """

    field: Field
    is_public: bool
    is_editable: bool = False
    default: Any = NO_DEFAULT
    minimum: float | None = None
    maximum: float | None = None
    ceiling_variable: str = ""
    max_items: int | None = None
    pattern: str = ""
    choices: tuple[str, ...] = ()
    embedded: type[Model] | None = None
    entries: Entries | None = None
    since: str = ""
    help: str = ""

    @property
    def is_time(self) -> bool:
        return isinstance(self.field, DateTimeField)

    @property
    def ceilings(self) -> list[Ceiling]:
        """The ceilings, the most specific first. The last applies to every model.

        Empty without `ceiling_variable`.
        """
        if not self.ceiling_variable:
            return []
        name = self.field.name
        by_model = settings.MODEL_CEILINGS.items()
        found = [Ceiling.parse(model, maxima[name]) for model, maxima in by_model if name in maxima]
        found.sort(key=lambda ceiling: (ceiling.is_prefix, -len(ceiling.start)))
        return [*found, Ceiling("", True, getattr(settings, self.ceiling_variable))]


def public(field: F, *, orm: bool = True, editable: bool = False, **options: Any) -> F:
    """Declare a field that clients see. A nullable field has the default None.

    The ORM neither loads nor migrates a field with `orm=False`: a stored field needs no migration.
    """
    if field.null:
        options.setdefault("default", None)
    if isinstance(field, EmbeddedModelField):
        options["embedded"] = field.embedded_model
    return _declared(field, orm, is_public=True, is_editable=editable, **options)


def internal(field: F, *, orm: bool = False, **options: Any) -> F:
    """Declare a field that only this service reads."""
    return _declared(field, orm, is_public=False, **options)


def _declared(field: F, orm: bool, **options: Any) -> F:
    field.declaration = Declaration(field=field, **options)  # type: ignore[attr-defined]
    if not orm:
        field.contribute_to_class = partial(_add_without_column, field)  # type: ignore[method-assign]
    return field


def _add_without_column(field: Field, model: type[Model], name: str) -> None:
    """Add a private field without a column, which Django neither loads nor migrates."""
    field.set_attributes_from_name(name)
    field.model, field.column, field.concrete = model, None, False
    model._meta.add_field(field, private=True)


def declarations(model: type[Model]) -> dict[str, Declaration]:
    """Return a model's declared fields by name, in their order in the class."""
    fields = sorted([*model._meta.local_fields, *model._meta.private_fields])
    return {field.name: field.declaration for field in fields if hasattr(field, "declaration")}


def defaults(model: type[Model]) -> dict[str, Any]:
    """Return the defaults in a model and in its embedded models, without CREATION_TIME."""
    found: dict[str, Any] = {}
    for name, field in declarations(model).items():
        if field.embedded:
            found[name] = defaults(field.embedded)
        elif field.default is not NO_DEFAULT and field.default is not CREATION_TIME:
            found[name] = field.default
    return found
