// The functions of orval, over fetch.
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
} from "./generated/orval";

const nodeFetch = globalThis.fetch;
globalThis.fetch = (path, init) =>
    nodeFetch(`${API}${path}`, {
        ...init,
        headers: { ...(init?.headers as Record<string, string>), Authorization: `Bearer ${TOKEN}` },
    });

const before = await getOverview();
if (before.status !== 200) throw new Error(JSON.stringify(before));
const created = await createConversation({ character_id: "luna", title: "Tea", tags: ["Work"] });
if (created.status !== 201) throw new Error(JSON.stringify(created));
const tea = created.data;
equal(tea.title, "Tea");
step("created");

const listed = await listConversations({ tags: ["work"], include_total: true });
if (listed.status !== 200) throw new Error(JSON.stringify(listed));
equal([listed.data.conversations[0].title, listed.data.pagination.total_count], ["Tea", 1]);
step("listed");

const read = await getConversation(tea.id);
const options = { headers: { "If-Match": read.headers.get("ETag") ?? "" } };
const patch = { title: "Green tea", settings: { temperature: null } };
const edited = await patchConversation(tea.id, patch, options);
if (edited.status !== 200) throw new Error(JSON.stringify(edited));
equal([edited.data.title, edited.data.version], ["Green tea", 2]);
const late = await patchConversation(tea.id, { title: "Late" }, options);
equal(late.status === 412 && late.data.error.code, "CONVERSATION_VERSION_CONFLICT");
step("edited");

const bulk = await bulkConversations({ action: "pin", filter: { tags: ["work"] } });
equal(bulk.status === 200 && bulk.data.summary, { matched: 1, ok: 1, skipped: 0, failed: 0 });
step("edited many");

await deleteConversation(tea.id);
equal((await deleteConversation(tea.id, { mode: "purge" })).status, 204);
const changes = await getChanges({ cursor: before.data.sync_cursor });
if (changes.status !== 200 || typeof changes.data === "string") throw new Error("no changes");
equal(changes.data.changes.map((change) => change.type), ["deleted"]);
step("followed the changes");
