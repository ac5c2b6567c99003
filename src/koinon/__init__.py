"""koinon: many parties train one model together and no party's data ever leaves its place."""

__version__ = "0.1.0"
