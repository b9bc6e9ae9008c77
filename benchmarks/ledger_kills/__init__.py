"""A ledger that several processes share, while they are killed: is anything lost that was acknowledged, or without an end?"""
