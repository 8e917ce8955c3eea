"""Staff accounts and roles: Django's own pages in the console's style and words."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, cast

from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.forms import UserChangeForm
from django.contrib.auth.models import Group, Permission, User
from django.core.exceptions import ValidationError
from django.db.models import Model, QuerySet
from django.forms import ChoiceField, Form, ModelForm, ModelMultipleChoiceField
from django.forms.models import ModelChoiceIterator
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin
from unfold.forms import AdminPasswordChangeForm, UserCreationForm
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget, UnfoldAdminRadioSelectWidget

from conversation_service.errors import Message
from conversations.admin import roles
from conversations.admin.changelist import ListPage, time_cell
from conversations.admin.timeline import EMPTY

admin.site.unregister([User, Group])
# The words in Django's titles, buttons and messages. A user owns conversations in this service.
User._meta.verbose_name, User._meta.verbose_name_plural = _("account"), _("accounts")
Group._meta.verbose_name, Group._meta.verbose_name_plural = _("role"), _("roles")


class _Checkboxes(UnfoldAdminCheckboxSelectMultipleWidget):  # type: ignore[misc]  # unfold has no types
    template_name = "console/checkboxes.html"


class RolesField(ModelMultipleChoiceField):
    """An account's roles, each with its permissions in words."""

    def __init__(self) -> None:
        super().__init__(
            Group.objects.order_by("name"),
            required=False,
            widget=_Checkboxes,
            label=_("Roles"),
            help_text=_("Without a role the account cannot see conversations."),
        )

    def label_from_instance(self, role: Model) -> str:
        return f"{role}: {roles.in_words(cast(Group, role))}"


class _ByGroup(ModelChoiceIterator):
    """The offered permissions by group, then the other permissions that the role has."""

    def __iter__(self) -> Iterator[Any]:
        ids = {roles.name_of(permission): permission.pk for permission in self.queryset}
        words = {roles.name_of(permission): permission.name for permission in self.queryset}
        groups = {**roles.OFFERED, _("Others"): words.keys() - roles.WORDS.keys()}
        for title, names in groups.items():
            choices = [(str(ids[n]), roles.WORDS.get(n, words[n])) for n in names if n in ids]
            if choices:
                yield title, choices


class PermissionsField(ModelMultipleChoiceField):
    iterator = _ByGroup


def _adapt_password_choice(form: Form) -> None:
    """Use plain words for the choice: the console has no login without a password."""
    choice = cast(ChoiceField, form.fields["usable_password"])
    choice.label, choice.help_text = _("Login"), ""
    choice.choices = [("true", _("With a password")), ("false", _("Not possible"))]
    choice.widget = UnfoldAdminRadioSelectWidget(choices=choice.choices)


class AccountCreationForm(UserCreationForm):  # type: ignore[misc]  # unfold has no types
    groups = RolesField()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _adapt_password_choice(self)
        self.instance.is_staff = True  # every account is for the console


class AccountForm(UserChangeForm):
    password = None  # type: ignore[assignment]  # has its own page
    groups = RolesField()

    class Meta(UserChangeForm.Meta):
        labels = {
            "is_active": _("Active"),
            "is_staff": _("Console access"),
            "is_superuser": _("Superuser"),
        }
        help_texts = {
            "is_active": _(
                "Off: the account cannot log in. An account with entries in the action log cannot "
                "be deleted."
            ),
            "is_staff": _("Without console access the account cannot log in."),
            "is_superuser": _("Has every permission, also without a role, and manages accounts."),
        }


class AccountPasswordForm(AdminPasswordChangeForm):  # type: ignore[misc]  # unfold has no types
    def __init__(self, user: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(user, *args, **kwargs)
        if user.has_usable_password():
            _adapt_password_choice(self)


class RoleForm(ModelForm):
    permissions = PermissionsField(
        Permission.objects.none(),
        required=False,
        widget=_Checkboxes,
        label=_("Allows"),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = cast(PermissionsField, self.fields["permissions"])
        known = Permission.objects.select_related("content_type")
        ids = [row.pk for row in known if roles.name_of(row) in roles.WORDS]
        if self.instance.pk:
            ids += self.instance.permissions.values_list("pk", flat=True)
        field.queryset = known.filter(pk__in=ids)

    def clean_permissions(self) -> QuerySet[Permission]:
        granted: QuerySet[Permission] = self.cleaned_data["permissions"]
        names = set(map(roles.name_of, granted))
        if roles.LOOK not in names and names & roles.ON_CONVERSATIONS.keys():
            raise ValidationError(
                _("Actions on conversations also require “view conversations and their history”.")
            )
        if roles.MANAGE_WEBHOOKS in names and roles.WEBHOOKS not in names:
            raise ValidationError(
                _("“Manage webhooks” also requires “view webhooks and their deliveries”.")
            )
        return granted


class _AccountPage(ListPage):
    """Uses the menu's words as form titles, too."""

    add_title: Message
    change_title: Message
    delete_title: Message
    delete_confirmation_template = "console/delete.html"
    actions = None  # no bulk deletion

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

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context = {"title": self.delete_title} | (extra_context or {})
        response: HttpResponse = super().delete_view(request, object_id, context)  # type: ignore[misc]
        return response

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Leave out the documents that link accounts and roles."""
        return [], {}, set(), []

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Redirect to the log for this account or role."""
        url = reverse("admin:admin_logentry_changelist", query={"q": object_id})
        return HttpResponseRedirect(url)


# UserAdmin precedes unfold's ModelAdmin: an empty add_fieldsets there would hide Django's own.
@admin.register(User)
class AccountAdmin(_AccountPage, UserAdmin, ModelAdmin):  # type: ignore[misc]  # unfold: no types
    list_title = _("Accounts")
    add_title = _("Add an account")
    change_title = _("Account")
    delete_title = _("Delete the account")
    form = AccountForm
    add_form = AccountCreationForm
    add_form_template = "admin/change_form.html"
    add_fieldsets = [
        (None, {"fields": ["username", "usable_password", "password1", "password2", "groups"]})
    ]
    change_password_form = AccountPasswordForm
    filter_horizontal = []
    search_help_text = _("A username, a name or an email address")
    list_display = ["username", "role_names", "can_log_in", "last_login_at"]
    list_filter = []

    def get_fieldsets(self, request: HttpRequest, obj: User | None = None) -> Any:
        """Accounts get permissions only from roles, so that permissions can be reviewed."""
        if obj is None:
            return self.add_fieldsets
        access = ["is_active", "is_superuser", "groups"]
        if not obj.is_staff:
            access.insert(1, "is_staff")
        return [
            (None, {"fields": ["username", "password_set"]}),
            (_("Access"), {"fields": access}),
            (_("Personal data"), {"fields": ["first_name", "last_name", "email"]}),
            (_("Times (UTC)"), {"fields": ["last_login_at", "created_at"]}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> list[str]:
        """No account can take its own access away."""
        own = ["is_active", "is_superuser"] if obj == request.user else []
        return ["password_set", "last_login_at", "created_at", *own]

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """An account with entries in the action log stays: a deletion would delete the entries."""
        if obj == request.user or (obj and LogEntry.objects.filter(user=obj).exists()):
            return False
        return bool(super().has_delete_permission(request, obj))

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """Read the roles of all accounts on the page at once: MongoDB has no prefetch for them."""
        page = super().get_changelist_instance(request)
        roles_by_account = defaultdict(list)
        given = User.groups.through.objects.filter(user__in=page.result_list)
        for account_id, name in given.values_list("user_id", "group__name").order_by("group__name"):
            roles_by_account[account_id].append(name)
        for account in page.result_list:
            account.roles = roles_by_account[account.pk]
        return page

    @admin.display(description=_("roles"))
    def role_names(self, account: Any) -> str:
        superuser = [gettext("superuser")] if account.is_superuser else []
        return ", ".join([*superuser, *account.roles]) or EMPTY

    @admin.display(description=_("Active"), boolean=True, ordering="is_active")
    def can_log_in(self, account: User) -> bool:
        return account.is_active

    @admin.display(description=_("password"))
    def password_set(self, account: User) -> SafeString:
        usable = account.has_usable_password()
        return format_html(
            '{} <a class="c-link" href="../password/">{}</a>',
            _("A password is set.") if usable else _("No password: the account cannot log in."),
            _("Change the password") if usable else _("Set a password"),
        )

    @admin.display(description=_("last login (UTC)"), ordering="last_login")
    def last_login_at(self, account: User) -> SafeString:
        return time_cell(account.last_login)

    @admin.display(description=_("created (UTC)"))
    def created_at(self, account: User) -> SafeString:
        return time_cell(account.date_joined)


@admin.register(Group)
class RoleAdmin(_AccountPage, GroupAdmin, ModelAdmin):  # type: ignore[misc]  # unfold: no types
    list_title = _("Roles")
    add_title = _("Add a role")
    change_title = _("Role")
    delete_title = _("Delete the role")
    form = RoleForm
    filter_horizontal = []
    search_fields = []
    list_display = ["name", "allows", "accounts"]

    @admin.display(description=_("allows"))
    def allows(self, role: Group) -> SafeString:
        words = capfirst(roles.in_words(role)) or EMPTY
        return format_html('<span class="c-words">{}</span>', words)

    @admin.display(description=_("accounts"))
    def accounts(self, role: Group) -> int:
        return role.user_set.count()
