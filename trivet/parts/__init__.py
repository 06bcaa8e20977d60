"""What is staged and committed: Parquet parts, staged shards, plans, and how to read them.

    plan      the sealed plan of an object's shards (no pyarrow needed)
    schema    columns of a part, their meaning, and the metadata of the file
    writer    legs and chunks → the bytes of a part
    staging   chunks with token ids → the bytes of a shard, and back
    reader    committed parts, through manifests alone, row group by row group
    duck      the same in DuckDB

`schema`, `writer`, `staging`, `reader` and `duck` need pyarrow; without it, importing them raises `MissingDependency`.
"""
