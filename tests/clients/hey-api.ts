// The client of @hey-api/openapi-ts.
import { API, TOKEN, equal, step } from "./check";
import {
    bulkConversations,
    createConversation,
    deleteConversation,
    getChanges,
    getConversation,
    getOverview,
    listConversations,
    patchConversation,
} from "./generated/hey-api";
import type { ChangePage } from "./generated/hey-api";
import { client } from "./generated/hey-api/client.gen";

client.setConfig({ baseUrl: API, auth: () => TOKEN });

const { data: before } = await getOverview({ throwOnError: true });
const { data: tea } = await createConversation({
    body: { character_id: "luna", title: "Tea", tags: ["Work"], settings: { max_tokens: 512 } },
    throwOnError: true,
});
equal(tea.settings.max_tokens, 512);
step("created");

const { data: listed } = await listConversations({
    query: { tags: ["work"], include_total: true },
    throwOnError: true,
});
equal([listed.conversations[0].title, listed.pagination.total_count], ["Tea", 1]);
const { data: some } = await listConversations({
    query: { fields: ["title"] },
    throwOnError: true,
});
equal(Object.keys(some.conversations[0]).sort(), ["id", "title"]);
step("listed");

const path = { id: tea.id };
const { response } = await getConversation({ path, throwOnError: true });
const headers = { "If-Match": response.headers.get("ETag") ?? "" };
const { data: edited } = await patchConversation({
    path,
    headers,
    body: { title: "Green tea", settings: { temperature: null }, pinned: true },
    throwOnError: true,
});
equal([edited.title, edited.version, edited.settings.temperature], ["Green tea", 2, 0.7]);
const late = await patchConversation({ path, headers, body: { title: "Late" } });
equal([late.response.status, late.error?.error.code], [412, "CONVERSATION_VERSION_CONFLICT"]);
step("edited");

const { data: bulk } = await bulkConversations({
    body: { action: "untag", ids: [tea.id], tags: ["Work"] },
    throwOnError: true,
});
equal(bulk.summary.ok, 1);
step("edited many");

await deleteConversation({ path, throwOnError: true });
const purged = await deleteConversation({ path, query: { mode: "purge" } });
equal(purged.response.status, 204);
const { data } = await getChanges({
    query: { cursor: before.sync_cursor },
    throwOnError: true,
});
const page = data as ChangePage; // the other media type is text
equal([page.changes[0].type, page.has_more], ["deleted", false]);
step("followed the changes");
