"""The states of a conversation."""

from collections.abc import Mapping

ACTIVE = "active"
ARCHIVED = "archived"
DELETED = "deleted"  # in the trash: its user can restore it until `purge_at`
PURGED = "purged"  # a tombstone: only the change feed shows it

ANY_STATE = (ACTIVE, ARCHIVED, DELETED)  # all but the tombstone
NOT_TRASHED = (ACTIVE, ARCHIVED)

# The values of the parameter `status` of a list, and the states that each includes.
LISTS: Mapping[str, tuple[str, ...]] = {name: (name,) for name in ANY_STATE} | {"all": NOT_TRASHED}
