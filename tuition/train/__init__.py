"""The model and its training: loop, loss, attention, optimizer, adapters, checkpoints, journal.

Torch and transformers' models first appear here. Evaluators are passed in; this room never imports them.
"""
