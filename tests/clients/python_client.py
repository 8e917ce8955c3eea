"""The package of openapi-python-client."""

import os

from generated.api.bulk_actions import bulk_conversations
from generated.api.conversations import (
    create_conversation,
    delete_conversation,
    get_conversation,
    list_conversations,
    patch_conversation,
)
from generated.api.history import get_history
from generated.api.overview import get_overview, get_summary, list_tags
from generated.api.sync import get_changes
from generated.client import AuthenticatedClient
from generated.models import (
    ActionEnum,
    BulkByFilter,
    BulkFilter,
    BulkResults,
    ChangePage,
    Conversation,
    ConversationList,
    Create,
    DeleteConversationMode,
    ListConversationsFieldsItem,
    LLMSettingsInput,
    Overview,
    PartialConversation,
    Patch,
    Problem,
    TagList,
    UserSummary,
)

client = AuthenticatedClient(os.environ["API"], os.environ["TOKEN"])


before = get_overview.sync(client=client)
assert isinstance(before, Overview), before
tea = create_conversation.sync(
    client=client,
    body=Create("luna", title="Tea", tags=["Work"], settings=LLMSettingsInput(temperature=0.5)),
)
assert isinstance(tea, Conversation), tea
assert tea.settings.temperature == 0.5
assert tea.pinned_at is None
print("created")

listed = list_conversations.sync(client=client, tags=["work"], include_total=True)
assert isinstance(listed, ConversationList), listed
[row] = listed.conversations
assert isinstance(row, Conversation), row
assert (row.title, listed.pagination.total_count) == ("Tea", 1)
listed = list_conversations.sync(client=client, fields=[ListConversationsFieldsItem.TITLE])
assert isinstance(listed, ConversationList), listed
[some] = listed.conversations
assert isinstance(some, PartialConversation), some
assert some.title == "Tea"
print("listed")

read = get_conversation.sync_detailed(tea.id, client=client)
etag = read.headers["ETag"]
patch = Patch(title="Green tea", tags_add=["home"], settings=LLMSettingsInput(temperature=None))
edited = patch_conversation.sync(tea.id, client=client, body=patch, if_match=etag)
assert isinstance(edited, Conversation), edited
assert (edited.title, edited.version) == ("Green tea", 2)
late = patch_conversation.sync(tea.id, client=client, body=Patch(title="Late"), if_match=etag)
assert isinstance(late, Problem), late
assert (late.status, late.error.code) == (412, "CONVERSATION_VERSION_CONFLICT")
print("edited")

many = BulkByFilter(ActionEnum.PIN, filter_=BulkFilter(tags=["home"]))
done = bulk_conversations.sync(client=client, body=many)
assert isinstance(done, BulkResults), done
assert done.summary.ok == 1
history = get_history.sync(tea.id, client=client)
assert history is not None
assert not isinstance(history, Problem)
assert len(history.revisions) == 2
print("edited many")

assert isinstance(list_tags.sync(client=client), TagList)
assert isinstance(get_summary.sync(client=client), UserSummary)
delete_conversation.sync_detailed(tea.id, client=client)
purged = delete_conversation.sync_detailed(tea.id, client=client, mode=DeleteConversationMode.PURGE)
assert purged.status_code == 204
page = get_changes.sync(client=client, cursor=before.sync_cursor)
assert isinstance(page, ChangePage), page
assert [change.type_ for change in page.changes] == ["deleted"]
print("followed the changes")
