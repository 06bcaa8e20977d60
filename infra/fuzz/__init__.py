"""The HTTP API against requests that Schemathesis makes up from its own OpenAPI document."""
