/** Requests, repeated where the server is busy, and errors as the API tells them. */

export interface Options {
  apiKey?: string;
  /** With or without `/v1`; http://127.0.0.1:8000 where none is given. */
  baseUrl?: string;
  namespace?: string;
  /** For tests, and for environments without a global fetch. */
  fetch?: typeof globalThis.fetch;
  /** How often a request is sent in all, where the server is too busy or away. */
  attempts?: number;
}

export interface CallOptions {
  namespace?: string | undefined;
  /** The same key and the same request: the same answer. */
  idempotencyKey?: string | undefined;
  /** Answer once the task has ended, or after so many seconds (60 at most). */
  waitSeconds?: number | undefined;
}

/** What the API answered in place of a result. */
export class TrivetError extends Error {
  constructor(
    readonly status: number,
    /** Stable name of the error, such as unknown_collection. */
    readonly code: string,
    message: string,
    readonly details: Record<string, unknown> = {},
  ) {
    super(message);
    this.name = "TrivetError";
  }
}

const BUSY = new Set([429, 503]);
const LONGEST_PAUSE_SECONDS = 30;

export class Http {
  private readonly base: string;
  private readonly send: typeof globalThis.fetch;

  constructor(private readonly options: Options) {
    this.base = (options.baseUrl ?? "http://127.0.0.1:8000").replace(/\/+$/, "").replace(/\/v1$/, "");
    this.send = options.fetch ?? globalThis.fetch.bind(globalThis);
  }

  async call<T>(method: string, path: string, body?: unknown, more: CallOptions = {}): Promise<T> {
    const creating = method === "POST" && !path.endsWith("/list") && !path.endsWith("/execute");
    // A key of its own makes a request that is sent again do no more than one that is not.
    const key = more.idempotencyKey ?? (creating ? `client:${crypto.randomUUID()}` : undefined);
    const attempts = this.options.attempts ?? 4;
    for (let attempt = 1; ; attempt++) {
      let answer: Response;
      try {
        answer = await this.send(`${this.base}/v1${path}`, {
          method,
          headers: this.headers({ ...more, idempotencyKey: key }),
          ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        });
      } catch (error) {
        if (attempt >= attempts) {
          throw new TrivetError(0, "unreachable", `The API at ${this.base} does not answer: ${String(error)}`);
        }
        await pause(2 ** (attempt - 1));
        continue;
      }
      if (answer.ok) return (await answer.json()) as T;
      if (!BUSY.has(answer.status) || attempt >= attempts) throw await errorOf(answer);
      const advised = Number(answer.headers.get("Retry-After") ?? NaN);
      await pause(Number.isFinite(advised) ? advised : 2 ** (attempt - 1));
    }
  }

  /** Server-sent events of a path, as they come. */
  async *events(path: string, more: CallOptions = {}): AsyncGenerator<{ event: string; data: string }> {
    const answer = await this.send(`${this.base}/v1${path}`, { headers: this.headers(more) });
    if (!answer.ok || answer.body === null) throw await errorOf(answer);
    const reader = answer.body.getReader();
    const decoder = new TextDecoder();
    let text = "";
    try {
      for (;;) {
        const { done, value } = await reader.read();
        text += decoder.decode(value, { stream: !done });
        for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
          const lines = text.slice(0, end).split("\n");
          text = text.slice(end + 2);
          const event = lines.find((line) => line.startsWith("event: "))?.slice(7);
          const data = lines.find((line) => line.startsWith("data: "))?.slice(6);
          // What has neither is a comment that keeps the connection open.
          if (event !== undefined && data !== undefined) yield { event, data };
        }
        if (done) return;
      }
    } finally {
      await reader.cancel();
    }
  }

  private headers(more: CallOptions): Record<string, string> {
    const found: Record<string, string> = { "Content-Type": "application/json", Accept: "application/json" };
    const namespace = more.namespace ?? this.options.namespace;
    if (this.options.apiKey) found["Authorization"] = `Bearer ${this.options.apiKey}`;
    if (namespace) found["X-Namespace"] = namespace;
    if (more.idempotencyKey) found["Idempotency-Key"] = more.idempotencyKey;
    if (more.waitSeconds) found["Prefer"] = `wait=${Math.round(more.waitSeconds)}`;
    return found;
  }
}

async function errorOf(answer: Response): Promise<TrivetError> {
  const body: unknown = await answer.json().catch(() => null);
  const error = (body as { error?: { message?: string; code?: string; details?: Record<string, unknown> } } | null)
    ?.error;
  const message = error?.message ?? `The API answered ${answer.status}.`;
  return new TrivetError(answer.status, error?.code ?? "unknown", message, error?.details ?? {});
}

function pause(seconds: number): Promise<void> {
  const milliseconds = 1000 * Math.min(Math.max(seconds, 0), LONGEST_PAUSE_SECONDS);
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
