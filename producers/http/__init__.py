"""The HTTP API, in Mixpeek's vocabulary and shapes: `trivet serve`, or `python -m producers.http`.

app.py          create_app(settings): the factory; what it opens, it closes
context.py      what routes work with: settings, ledger, store, resources, clock
caller.py       who asks, and for which namespace
errors.py       every error as the one envelope that clients know
routes/         one module per resource, each with a `router`
"""
