// openapi-fetch over the types of openapi-typescript.
import createClient from "openapi-fetch";
import { API, TOKEN, equal, step } from "./check";
import type { components, paths } from "./generated/schema";

const api = createClient<paths>({ baseUrl: API, headers: { Authorization: `Bearer ${TOKEN}` } });

function body<T>({ data, error }: { data?: T; error?: unknown }): T {
    if (data === undefined) throw new Error(`failed: ${JSON.stringify(error)}`);
    return data;
}

const before = await api.GET("/api/v1/conversations/overview");
const created = await api.POST("/api/v1/conversations", {
    body: { character_id: "luna", title: "Tea", tags: ["Work"], settings: { temperature: 0.5 } },
});
const tea = body(created);
equal(created.response.status, 201);
equal(tea.settings.temperature, 0.5);
equal(tea.pinned_at, null);
step("created");

const listed = body(
    await api.GET("/api/v1/conversations", {
        params: { query: { tags: ["work"], include_total: true, sort: "title", order: "asc" } },
    }),
);
equal(listed.pagination.total_count, 1);
equal(listed.conversations[0].title, "Tea");
step("listed");

const partial = body(
    await api.GET("/api/v1/conversations", { params: { query: { fields: ["title"] } } }),
).conversations[0];
equal(partial.title, "Tea");
equal("version" in partial ? partial.version : undefined, undefined);
step("listed some fields");

const path = { id: tea.id };
const read = await api.GET("/api/v1/conversations/{id}", { params: { path } });
equal(body(read).id, tea.id);
const etag = read.response.headers.get("ETag") ?? "";
const edited = body(
    await api.PATCH("/api/v1/conversations/{id}", {
        params: { path, header: { "If-Match": etag } },
        body: { title: "Green tea", settings: { temperature: null }, tags_add: ["home"] },
    }),
);
equal(edited.version, 2);
step("edited");

const stale = await api.PATCH("/api/v1/conversations/{id}", {
    params: { path, header: { "If-Match": etag } },
    body: { title: "Late" },
});
equal(stale.response.status, 412);
equal(stale.error?.error.code, "CONVERSATION_VERSION_CONFLICT");
const absent = await api.GET("/api/v1/conversations/{id}", {
    params: { path: { id: "0".repeat(24) } },
});
equal(absent.error?.error.code, "CONVERSATION_NOT_FOUND");
step("received errors");

const bulk = body(
    await api.POST("/api/v1/conversations/bulk", {
        body: { action: "archive", filter: { character_id: "luna" }, dry_run: true },
    }),
);
equal(bulk.summary.matched, 1);
step("tried a bulk action");

const { revisions } = body(
    await api.GET("/api/v1/conversations/{id}/history", { params: { path } }),
);
equal(revisions.length, 1);
body(
    await api.POST("/api/v1/conversations/{id}/revert", {
        params: { path, header: { "If-Match": '"v2"' } },
        body: { version: 1, fields: ["title"] },
    }),
);
const copy = await api.POST("/api/v1/conversations/{id}/duplicate", { params: { path } });
equal(body(copy).forked_from, tea.id);
step("reverted and duplicated");

await api.DELETE("/api/v1/conversations/{id}", { params: { path } });
const purged = await api.DELETE("/api/v1/conversations/{id}", {
    params: { path, query: { mode: "purge" } },
});
equal(purged.response.status, 204);
// The path also has a text/event-stream: the type is JSON or text.
const query = { cursor: body(before).sync_cursor };
const page = body(await api.GET("/api/v1/changes", { params: { query } })) as components["schemas"]["ChangePage"];
const kinds = page.changes.map((change) =>
    change.type === "upsert" ? change.conversation.title : change.id,
);
equal(kinds, ["Tea", tea.id]);
step("followed the changes");

const exported = await api.GET("/api/v1/conversations/export", { parseAs: "text" });
const lines: string = body(exported);
equal(lines.trim().split("\n").length, 2); // the copy, and the end
const imported = await api.POST("/api/v1/conversations/import", {
    body: lines,
    bodySerializer: (text) => text,
    headers: { "Content-Type": "application/x-ndjson" },
    parseAs: "text",
});
equal(imported.response.status, 200);
step("exported and imported");

const tags = body(await api.GET("/api/v1/tags"));
const overview = body(await api.GET("/api/v1/conversations/overview"));
const summary = body(await api.GET("/api/v1/conversations/summary"));
equal(tags.tags.length, overview.tags.length);
equal(summary.statistics.total_messages, 0);
step("read the statistics");
