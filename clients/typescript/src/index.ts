/**
 * Client of Trivet's HTTP API.
 *
 *     const trivet = new Trivet({ baseUrl: "http://127.0.0.1:8000", apiKey: "…" });
 *     const { task_id } = await trivet.collections.ingest({ collection_id: "docs", source: { url: "https://…" } });
 *     const task = await trivet.tasks.wait(task_id);
 */

import { type CallOptions, Http, type Options, TrivetError } from "./http.js";
import type * as t from "./types.js";

export type * from "./types.js";
export { type CallOptions, type Options, TrivetError } from "./http.js";

const ENDED: ReadonlySet<t.Status> = new Set<t.Status>([
  "COMPLETED",
  "COMPLETED_WITH_ERRORS",
  "FAILED",
  "CANCELED",
  "SKIPPED",
]);
const id = encodeURIComponent;

class Buckets {
  constructor(private readonly http: Http) {}

  create(asked: { bucket_name: string; bucket_schema?: Record<string, unknown> }, how?: CallOptions): Promise<t.Bucket> {
    return this.http.call("POST", "/buckets", asked, how);
  }

  get(bucket: string): Promise<t.Bucket> {
    return this.http.call("GET", `/buckets/${id(bucket)}`);
  }

  list(asked: { limit?: number; cursor?: string } = {}): Promise<t.Page<t.Bucket>> {
    return this.http.call("POST", "/buckets/list", asked);
  }

  put(
    bucket: string,
    asked: { blobs: t.Blob[]; metadata?: Record<string, unknown> },
    how?: CallOptions,
  ): Promise<t.StoredObject> {
    return this.http.call("POST", `/buckets/${id(bucket)}/objects`, asked, how);
  }

  delete(bucket: string): Promise<{ success: boolean }> {
    return this.http.call("DELETE", `/buckets/${id(bucket)}`);
  }
}

class Collections {
  constructor(private readonly http: Http) {}

  create({ namespace_id, ...asked }: t.CollectionRequest, how: CallOptions = {}): Promise<t.Collection> {
    return this.http.call("POST", "/collections", asked, { ...how, namespace: how.namespace ?? namespace_id });
  }

  get(collection: string): Promise<t.Collection> {
    return this.http.call("GET", `/collections/${id(collection)}`);
  }

  list(asked: { limit?: number; cursor?: string } = {}): Promise<t.Page<t.Collection>> {
    return this.http.call("POST", "/collections/list", asked);
  }

  /** One source, or up to 10,000. Once it answers, what was accepted is done whatever process dies. */
  ingest({ collection_id, ...asked }: t.IngestRequest, how?: CallOptions): Promise<t.IngestAnswer> {
    return this.http.call("POST", `/collections/${id(collection_id)}/ingest`, asked, how);
  }

  /** Take in what lies in the collection's buckets. */
  trigger(collection: string, asked: { object_ids?: string[] } = {}, how?: CallOptions): Promise<t.Trigger> {
    return this.http.call("POST", `/collections/${id(collection)}/trigger`, asked, how);
  }

  delete(collection: string): Promise<{ success: boolean; task_ids: string[] }> {
    return this.http.call("DELETE", `/collections/${id(collection)}`);
  }
}

class Documents {
  constructor(private readonly http: Http) {}

  list(
    collection: string,
    asked: { limit?: number; cursor?: string; object_id?: string; filters?: Record<string, unknown> } = {},
  ): Promise<t.Page<t.Document>> {
    return this.http.call("POST", `/collections/${id(collection)}/documents/list`, asked);
  }

  /** All of them, page by page. */
  async *all(collection: string, asked: { object_id?: string; filters?: Record<string, unknown> } = {}) {
    let cursor: string | null = null;
    do {
      const page: t.Page<t.Document> = await this.list(collection, { ...asked, ...(cursor ? { cursor } : {}) });
      yield* page.results;
      cursor = page.pagination.next_cursor;
    } while (cursor !== null);
  }

  get(collection: string, document: string): Promise<t.Document> {
    return this.http.call("GET", `/collections/${id(collection)}/documents/${id(document)}`);
  }
}

class Tasks {
  constructor(private readonly http: Http) {}

  get(task: string, how?: CallOptions): Promise<t.Task> {
    return this.http.call("GET", `/tasks/${id(task)}`, undefined, how);
  }

  /** Wait until it has ended. A failed task is returned, not thrown: look at `status` and `error`. */
  async wait(task: string, timeoutSeconds = 600): Promise<t.Task> {
    const deadline = Date.now() + 1000 * timeoutSeconds;
    for (;;) {
      const left = (deadline - Date.now()) / 1000;
      const found = await this.get(task, { waitSeconds: Math.max(1, Math.min(30, left)) });
      if (ENDED.has(found.status)) return found;
      if (left <= 0) throw new TrivetError(0, "timeout", `Task ${task} is still ${found.status}.`);
    }
  }

  /** The task after every change, the last one when it has ended. */
  async *follow(task: string): AsyncGenerator<t.Task> {
    for await (const { data } of this.http.events(`/tasks/${id(task)}/events`)) yield JSON.parse(data) as t.Task;
  }

  cancel(task: string): Promise<t.Task> {
    return this.http.call("POST", `/tasks/${id(task)}/cancel`);
  }

  retry(task: string): Promise<t.Task> {
    return this.http.call("POST", `/tasks/${id(task)}/retry`);
  }
}

class Retrievers {
  constructor(private readonly http: Http) {}

  create(asked: t.RetrieverRequest, how?: CallOptions): Promise<t.Retriever> {
    return this.http.call("POST", "/retrievers", asked, how);
  }

  execute(retriever: string, asked: t.ExecuteRequest): Promise<t.Found> {
    return this.http.call("POST", `/retrievers/${id(retriever)}/execute`, asked);
  }

  delete(retriever: string): Promise<{ success: boolean }> {
    return this.http.call("DELETE", `/retrievers/${id(retriever)}`);
  }
}

export class Trivet {
  readonly buckets: Buckets;
  readonly collections: Collections;
  readonly documents: Documents;
  readonly tasks: Tasks;
  readonly retrievers: Retrievers;
  private readonly http: Http;

  constructor(options: Options = {}) {
    this.http = new Http(options);
    this.buckets = new Buckets(this.http);
    this.collections = new Collections(this.http);
    this.documents = new Documents(this.http);
    this.tasks = new Tasks(this.http);
    this.retrievers = new Retrievers(this.http);
  }

  /** Search with all three legs, without a retriever of its own. */
  search(query: string, asked: { collections?: string[]; limit?: number; filters?: Record<string, unknown> } = {}) {
    const { collections = [], limit = 10, filters } = asked;
    const stages = [{ type: "feature_search", query: "{{INPUT.query}}", limit }];
    const body = { stages, collection_identifiers: collections, inputs: { query }, ...(filters ? { filters } : {}) };
    return this.http.call<t.Found>("POST", "/retrievers/execute", body);
  }
}

/** So that a snippet which was written for Mixpeek needs another import alone. */
export { Trivet as Mixpeek };
