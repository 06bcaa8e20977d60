local namespace, kind, id = unpack(ARGV)
return forget(namespace, kind, id)
