"""What users take away again: deletes hide objects (`deletes`), purges remove what hidden ones have left (`purge`)."""
