"""Where it runs: the Celery app, the roles, and the life of a worker process.

python -m workers.main --roles prepare,commit --concurrency 2
python -m workers.main --roles embed
python -m workers.main --roles sweep,gc
python -m workers.main --roles deliver
python -m workers.main --roles search
"""
