/** What the API takes and answers: the fields that a caller works with. `GET /openapi.json` has all of them. */

export type Status =
  | "PENDING"
  | "QUEUED"
  | "PROCESSING"
  | "COMPLETED"
  | "COMPLETED_WITH_ERRORS"
  | "FAILED"
  | "CANCELED"
  | "SKIPPED"
  | "DRAFT"
  | "UNKNOWN";

export interface Extractor {
  name?: string;
  version?: string;
  params?: Record<string, unknown>;
  input_mappings?: Record<string, string>;
}

/** Mixpeek's other spelling of the same. */
export interface FeatureExtractor {
  feature_extractor_name: string;
  version: string;
  parameters?: Record<string, unknown>;
  params?: Record<string, unknown>;
  input_mappings?: Record<string, string>;
}

export interface Source {
  url?: string;
  text?: string;
  base64?: string;
  media_type?: string;
  object_id?: string;
  metadata?: Record<string, unknown>;
}

export interface IngestRequest {
  /** Id or name. */
  collection_id: string;
  source?: Source;
  /** Up to 10,000 in place of one. */
  sources?: Source[];
  feature_extractors?: Extractor[];
  object_id?: string;
  metadata?: Record<string, unknown>;
  lane?: "interactive" | "normal" | "bulk";
}

export interface SourceOutcome {
  index: number;
  status: "accepted" | "refused";
  object_id: string | null;
  task_id: string | null;
  error: string | null;
  code: string | null;
}

export interface IngestAnswer {
  task_id: string;
  batch_id: string | null;
  object_id: string | null;
  collection_id: string;
  status: Status;
  new: boolean;
  accepted: number;
  refused: number;
  results: SourceOutcome[] | null;
}

export interface CollectionRequest {
  collection_name: string;
  description?: string;
  source?: { type: "bucket"; bucket_ids: string[] };
  feature_extractor?: FeatureExtractor;
  feature_extractors?: Extractor[];
  metadata?: Record<string, unknown>;
  /** As X-Namespace of this call alone. */
  namespace_id?: string;
}

export interface Collection {
  collection_id: string;
  collection_name: string;
  description: string | null;
  vector_indexes: { name: string; feature_uri: string; type: string }[];
  warnings: string[];
}

export interface Bucket {
  bucket_id: string;
  bucket_name: string;
  object_count: number;
}

export interface Blob {
  property: string;
  type: string;
  data?: string | { url: string } | { base64: string; mime_type?: string };
  upload_id?: string;
}

export interface StoredObject {
  object_id: string;
  bucket_id: string;
}

export interface Task {
  task_id: string;
  task_type: string;
  status: Status;
  error: string | null;
  error_code: string | null;
  object_id: string | null;
  progress: { percent: number; shards: number; shards_done: number; tokens: number; tokens_done: number };
}

export interface Trigger {
  task_id: string;
  batch_id: string;
  collection_id: string;
  object_count: number;
  message: string;
}

export interface Document {
  document_id: string;
  collection_id: string;
  object_id: string;
  text: string;
  chunk_index: number;
  page_start: number | null;
  page_end: number | null;
  language: string | null;
  source_url: string;
  metadata: Record<string, unknown>;
  model: string | null;
  score: number | null;
}

export interface Page<T> {
  results: T[];
  total_count: number;
  pagination: { next_cursor: string | null; page_size: number };
}

export interface Retriever {
  retriever_id: string;
  retriever_name: string;
}

export interface RetrieverRequest {
  retriever_name: string;
  stages: Record<string, unknown>[];
  collection_identifiers?: string[];
  input_schema?: Record<string, unknown>;
}

export interface ExecuteRequest {
  inputs: Record<string, unknown>;
  filters?: Record<string, unknown>;
  limit?: number;
  pagination?: { page_number?: number; page_size: number };
}

export interface Found {
  execution_id: string;
  documents: Document[];
  pagination: { total: number; has_next: boolean };
  model: string | null;
  warnings: string[];
}
