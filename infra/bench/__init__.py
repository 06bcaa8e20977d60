"""`make bench`: the pipeline against the bare encoder, on the same chunks, in one run."""
