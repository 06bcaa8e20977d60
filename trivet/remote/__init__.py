"""The client over HTTP: `Trivet("http://host:8000")`, and `AsyncTrivet` for asyncio.

calls.py         requests as values, and what their answers mean: knows neither sockets nor waiting
client.py        the synchronous client: the same methods as over Redis
asynchronous.py  the same as coroutines
"""
