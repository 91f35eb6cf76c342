"""One file per problem: thresholds, rule, words, remedies, what it brings about."""

__all__: list[str] = []
