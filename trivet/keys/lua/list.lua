-- ARGV: …, namespace → the ids of its keys
return present(ARGV[3])
