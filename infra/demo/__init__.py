"""`make demo`: real documents in, embeddings out, on one machine with nothing installed by hand."""
