"""Staff accounts and roles: Django's own pages in the console's style."""

from typing import Any, cast

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from django.db.models import ManyToManyField
from django.forms import ChoiceField, Form, ModelMultipleChoiceField
from django.http import HttpRequest, HttpResponse
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from unfold.widgets import UnfoldAdminRadioSelectWidget

from conversation_service.errors import Message
from conversations.admin.changelist import ListPage, time_cell

admin.site.unregister([User, Group])

_FIELDSETS: Any = UserAdmin.fieldsets


def _adapt_password_choice(form: Form) -> None:
    """Replace Django's help text on logins without a password: the console has none."""
    choice = cast(ChoiceField, form.fields["usable_password"])
    choice.help_text = _("Without a password the account cannot log in.")
    choice.widget = UnfoldAdminRadioSelectWidget(choices=choice.choices)


class AccountCreationForm(UserCreationForm):  # type: ignore[misc]  # unfold has no types
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _adapt_password_choice(self)


class AccountPasswordForm(AdminPasswordChangeForm):  # type: ignore[misc]  # unfold has no types
    def __init__(self, user: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(user, *args, **kwargs)
        if user.has_usable_password():
            _adapt_password_choice(self)


class _AccountPage(ListPage):
    """Has the menu's words as titles of its forms, too."""

    add_title: Message
    change_title: Message

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        title = self.change_title if object_id else self.add_title
        context = {"title": title} | (extra_context or {})
        response: HttpResponse = super().changeform_view(  # type: ignore[misc]
            request, object_id, form_url, context
        )
        return response


# UserAdmin precedes unfold's ModelAdmin: an empty add_fieldsets there would hide Django's own.
@admin.register(User)
class AccountAdmin(_AccountPage, UserAdmin, ModelAdmin):  # type: ignore[misc]  # unfold: no types
    list_title = _("Accounts")
    add_title = _("Add an account")
    change_title = _("Account")
    form = UserChangeForm
    add_form = AccountCreationForm
    change_password_form = AccountPasswordForm
    # Accounts get permissions only from roles, so that permissions can be reviewed.
    fieldsets = [
        *_FIELDSETS[:2],
        (_FIELDSETS[2][0], {"fields": ["is_active", "is_staff", "is_superuser", "groups"]}),
        *_FIELDSETS[3:],
    ]
    readonly_fields = ["last_login", "date_joined"]
    filter_horizontal = []
    list_display = ["username", "email", "is_active", "is_staff", "is_superuser", "login_at"]
    list_filter = ["is_active", "is_superuser"]
    show_facets = admin.ShowFacets.NEVER

    def formfield_for_manytomany(
        self, db_field: ManyToManyField, request: HttpRequest, **kwargs: Any
    ) -> ModelMultipleChoiceField | None:
        if db_field.name == "groups":
            kwargs["label"] = _("Roles")
            kwargs["help_text"] = _("Without a role the account cannot see conversations.")
        return super().formfield_for_manytomany(db_field, request, **kwargs)

    @admin.display(description=_("last login (UTC)"), ordering="last_login")
    def login_at(self, account: User) -> SafeString:
        return time_cell(account.last_login)


@admin.register(Group)
class RoleAdmin(_AccountPage, GroupAdmin, ModelAdmin):  # type: ignore[misc]  # unfold: no types
    list_title = _("Roles")
    add_title = _("Add a role")
    change_title = _("Role")
    filter_horizontal = []
    list_display = ["name"]
