"""What a model is worth: held-out loss, its own answers, metrics with intervals, comparisons in pairs, and the report.

Nothing here learns; whatever scores a model leaves it as it was.
"""
