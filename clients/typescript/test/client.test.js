import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, test } from "node:test";

import { Mixpeek, Trivet, TrivetError } from "../dist/index.js";

/** What came in, and what is answered next. */
const seen = [];
const answers = [];
let server;
let baseUrl;

before(async () => {
  server = createServer((request, response) => {
    let body = "";
    request.on("data", (piece) => (body += piece));
    request.on("end", () => {
      seen.push({ method: request.method, url: request.url, headers: request.headers, body: body && JSON.parse(body) });
      const { status = 200, json = {}, headers = {}, raw } = answers.shift() ?? {};
      response.writeHead(status, headers);
      response.end(raw ?? JSON.stringify(json));
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  baseUrl = `http://127.0.0.1:${server.address().port}`;
});

after(() => server.close());

test("the snippet of the product page sends its payload to the collection's ingest", async () => {
  const mx = new Mixpeek({ apiKey: "API_KEY", baseUrl });
  await mx.collections.ingest({
    collection_id: "my-collection",
    source: { url: "https://example.com/report.pdf" },
    feature_extractors: [{ name: "text_embedding", version: "v1", params: { model_id: "BAAI/bge-m3" } }],
  });
  const sent = seen.at(-1);
  assert.equal(sent.method, "POST");
  assert.equal(sent.url, "/v1/collections/my-collection/ingest");
  assert.equal(sent.headers.authorization, "Bearer API_KEY");
  assert.deepEqual(sent.body, {
    source: { url: "https://example.com/report.pdf" },
    feature_extractors: [{ name: "text_embedding", version: "v1", params: { model_id: "BAAI/bge-m3" } }],
  });
});

test("a refusal for load is waited out, and the request that is sent again has the same key", async () => {
  answers.push({ status: 503, headers: { "Retry-After": "0" } }, { json: { task_id: "task_1" } });
  const trivet = new Trivet({ baseUrl: `${baseUrl}/v1/` });
  const found = await trivet.collections.ingest({ collection_id: "c", source: { text: "x" } });
  assert.equal(found.task_id, "task_1");
  const [first, second] = seen.slice(-2);
  assert.ok(first.headers["idempotency-key"]);
  assert.equal(first.headers["idempotency-key"], second.headers["idempotency-key"]);
});

test("an error has the API's code and sentence", async () => {
  answers.push({ status: 404, json: { error: { code: "unknown_collection", message: "No collection." } } });
  const trivet = new Trivet({ baseUrl });
  await assert.rejects(trivet.collections.get("none"), (error) => {
    assert.ok(error instanceof TrivetError);
    assert.deepEqual([error.status, error.code, error.message], [404, "unknown_collection", "No collection."]);
    return true;
  });
});

test("where nobody answers it says so", async () => {
  const trivet = new Trivet({ baseUrl: "http://127.0.0.1:1", attempts: 1 });
  await assert.rejects(trivet.tasks.get("t"), { code: "unreachable" });
});

test("a task is followed through its events, comments passed over", async () => {
  const raw = 'event: progress\ndata: {"status":"QUEUED"}\n\n: still there\n\nevent: end\ndata: {"status":"COMPLETED"}\n\n';
  answers.push({ raw, headers: { "Content-Type": "text/event-stream" } });
  const statuses = [];
  for await (const task of new Trivet({ baseUrl }).tasks.follow("t")) statuses.push(task.status);
  assert.deepEqual(statuses, ["QUEUED", "COMPLETED"]);
});

test("documents come page by page", async () => {
  const page = (name, next_cursor) => ({ json: { results: [{ text: name }], pagination: { next_cursor } } });
  answers.push(page("a", "next"), page("b", null));
  const texts = [];
  for await (const document of new Trivet({ baseUrl }).documents.all("c")) texts.push(document.text);
  assert.deepEqual(texts, ["a", "b"]);
  assert.equal(seen.at(-1).body.cursor, "next");
});

test("ids are one segment of a path, and a namespace goes in its header", async () => {
  const trivet = new Trivet({ baseUrl, namespace: "acme" });
  await trivet.collections.get("a/../b");
  assert.equal(seen.at(-1).url, "/v1/collections/a%2F..%2Fb");
  assert.equal(seen.at(-1).headers["x-namespace"], "acme");
  await trivet.collections.create({ collection_name: "c", namespace_id: "other" });
  assert.equal(seen.at(-1).headers["x-namespace"], "other");
  assert.deepEqual(seen.at(-1).body, { collection_name: "c" });
});
