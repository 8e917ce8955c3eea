"""Staff's own accounts and roles: Django's pages, in the console's dress."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from conversations.console.changelist import PlainChangeList

admin.site.unregister([User, Group])

_FIELDSETS: Any = UserAdmin.fieldsets


class _ListedOnly(ModelAdmin):  # type: ignore[misc]  # unfold has no types
    """Refuses in an address what no filter of the list offers: a bad pattern is an error 500."""

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return PlainChangeList

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        return lookup.removesuffix("__exact") in self.get_list_filter(request)


@admin.register(User)
class AccountAdmin(_ListedOnly, UserAdmin):
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    # Rights come with roles; those of one person alone nobody would remember.
    fieldsets = [
        *_FIELDSETS[:2],
        (_FIELDSETS[2][0], {"fields": ["is_active", "is_staff", "is_superuser", "groups"]}),
        *_FIELDSETS[3:],
    ]
    readonly_fields = ["last_login", "date_joined"]
    filter_horizontal = []
    list_display = ["username", "email", "is_active", "is_superuser", "last_login"]
    list_filter = ["is_active", "is_superuser"]
    list_before_template = "console/filters.html"
    show_facets = admin.ShowFacets.NEVER


@admin.register(Group)
class RoleAdmin(_ListedOnly, GroupAdmin):
    filter_horizontal = []
