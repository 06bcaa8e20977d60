#!/bin/sh
# Runs every check and the whole test suite, goes on after a failure, and says at the end how each of them went.
set -u
cd "$(dirname "$0")/.."
bin=.venv/bin
failed=0
summary=

step() {
    name=$1
    shift
    printf '\n== %s\n' "$name"
    began=$(date +%s)
    if "$@"; then result=passed; else result=FAILED failed=1; fi
    summary="$summary$(printf '%-8s %-16s %4d s' "$result" "$name" $(($(date +%s) - began)))
"
}

step "ruff check" "$bin/ruff" check .
step "ruff format" "$bin/ruff" format --check --quiet .
step "mypy" "$bin/mypy"
step "import-linter" "$bin/lint-imports" --no-logo
[ "${1:-}" = checks ] || step "pytest" "$bin/python" -m pytest -n auto --maxprocesses 4 ${PYTEST_ARGS:-}

printf '\n%s' "$summary"
exit $failed
