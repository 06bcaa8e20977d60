#!/bin/sh
# Ingest a URL and search it, with curl alone: examples/ingest.sh URL QUERY
# INGEST_API is the API's address, INGEST_API_KEY its key, if it has one.
set -eu
api=${INGEST_API:-http://127.0.0.1:8000}/v1
source=$1
query=$2

call() { # call METHOD PATH [BODY]
    method=$1 path=$2
    shift 2
    curl --silent --show-error --fail-with-body --request "$method" "$api$path" \
        --header 'Content-Type: application/json' ${INGEST_API_KEY:+--header "Authorization: Bearer $INGEST_API_KEY"} \
        --header 'Prefer: wait=60' ${1:+--data "$1"}
}

field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }

# There from an earlier run: go on with it.
call GET /collections/curl-example >/dev/null 2>&1 || call POST /collections '{"collection_name": "curl-example"}' >/dev/null

# It answers once the source has been embedded, or after 60 s.
status=$(call POST /collections/curl-example/ingest "{\"source\": {\"url\": \"$source\"}}" | field status)
echo "$status"

call POST /retrievers/execute "{
    \"stages\": [{\"type\": \"feature_search\", \"query\": \"{{INPUT.query}}\", \"limit\": 3}],
    \"collection_identifiers\": [\"curl-example\"],
    \"inputs\": {\"query\": \"$query\"}
}"
