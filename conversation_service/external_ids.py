"""Ids of users, characters and services. Other systems issue them; here they are opaque."""

import re
from typing import Any, TypeGuard

from django.utils.translation import gettext_lazy as _

MAX_LENGTH = 255  # as OpenID Connect allows for `sub`
# Visible ASCII. Without anchors, as Python and MongoDB write the end of a string differently.
PATTERN = rf"[!-~]{{1,{MAX_LENGTH}}}"
RULE = _("Use 1 to 255 visible ASCII characters.")

_WHOLE = re.compile(PATTERN)


def is_external_id(value: Any) -> TypeGuard[str]:
    """Return whether a value is a string that follows RULE. Ids are compared exactly."""
    return isinstance(value, str) and _WHOLE.fullmatch(value) is not None
