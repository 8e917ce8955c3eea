"""Unfold's texts on our pages. Unfold has no Spanish, so that they are translated with our own."""

from django.utils.translation import gettext_lazy as _

WORDS = [
    _("After you've created a user, you’ll be able to edit more user options."),  # noqa: RUF001
    _("False"),
    _("General"),
    _(
        "Raw passwords are not stored, so there is no way to see this user’s password, "  # noqa: RUF001
        "but you can change the password using "
        '<a href="{}" class="text-primary-600 dark:text-primary-500">this form</a>.'
    ),
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
