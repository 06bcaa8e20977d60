"""Where a task enters: programs that find sources and enqueue them through the library's client.

python -m producers.url_list FILE --collection C      one URL per line, from a file or standard input
"""
