"""What is staged and committed: Parquet parts, staged shards, plans, and how to read them.

    plan      the sealed plan of an object's shards (no pyarrow needed)
    schema    columns of a part, their meaning, and the metadata of the file
    outputs   legs as they are stored: truncated, pooled, quantised
    writer    legs and chunks → the bytes of a part
    staging   chunks with token ids → the bytes of a shard, and back
    reader    committed parts, through manifests alone, row group by row group
    duck      the same in DuckDB

All but `plan` need pyarrow, and `outputs` needs scipy to pool; without them they raise `MissingDependency`.
"""
