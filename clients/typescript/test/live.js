// A flow against a running API: node test/live.js BASE_URL. Exit status 0 if it went as it should.
import assert from "node:assert/strict";

import { Mixpeek, Trivet } from "../dist/index.js";

const baseUrl = process.argv[2];
const trivet = new Trivet({ baseUrl });
await trivet.collections.create({ collection_name: "typescript" });

const mx = new Mixpeek({ apiKey: "API_KEY", baseUrl });
const first = await mx.collections.ingest({
  collection_id: "typescript",
  source: { text: "The lighthouse keeper trims the lantern." },
  feature_extractors: [{ name: "text_embedding", version: "v1", params: { model_id: "BAAI/bge-m3" } }],
});
assert.equal((await trivet.tasks.wait(first.task_id, 120)).status, "COMPLETED");
const many = await trivet.collections.ingest({
  collection_id: "typescript",
  sources: [{ text: "Knead the sourdough and bake the bread." }, { url: "not a url" }],
});
assert.deepEqual([many.accepted, many.refused], [1, 1]);
let last;
for await (const task of trivet.tasks.follow(many.task_id)) last = task;
assert.equal(last.status, "COMPLETED_WITH_ERRORS");
const texts = [];
for await (const document of trivet.documents.all("typescript")) texts.push(document.text);
assert.equal(texts.length, 2);
const found = await trivet.search("sourdough bread", { collections: ["typescript"] });
assert.equal(found.documents[0].text, "Knead the sourdough and bake the bread.");
console.log("ok");
