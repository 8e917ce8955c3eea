"""Texts from unfold and Django that the console's pages show and its catalog translates.

Unfold has no Spanish. Django's Spanish uses the masculine form for every object, and has a
spelling error.
"""

from django.utils.translation import gettext_lazy as _

UNFOLD = [
    _("False"),
    _("General"),
    _("Select action"),
    _("Select action to run"),
    _("Select all rows"),
    _("Select record"),
    _("Select value"),
    _("Toggle password visibility"),
    _("True"),
    _("Type to search"),
    _("Welcome back to"),
    _("You have been successfully logged out from the administration"),
]
DJANGO = [
    _("0 of %(cnt)s selected"),
    _("The {name} “{obj}” was added successfully."),
    _("The {name} “{obj}” was added successfully. You may add another {name} below."),
    _("The {name} “{obj}” was changed successfully."),
    _("The {name} “{obj}” was changed successfully. You may edit it again below."),
    _("The {name} “{obj}” was changed successfully. You may add another {name} below."),
    _("The %(name)s “%(obj)s” was deleted successfully."),
    _("%(name)s with ID “%(key)s” doesn’t exist. Perhaps it was deleted?"),  # noqa: RUF001
    _("You may edit it again below."),
    _("Required. 150 characters or fewer. Letters, digits and @/./+/-/_ only."),
    _(
        "Please enter your old password, for security’s sake, and then enter your new password "  # noqa: RUF001
        "twice so we can verify you typed it in correctly."
    ),
    _("All"),
    _("Save and add another"),
]
