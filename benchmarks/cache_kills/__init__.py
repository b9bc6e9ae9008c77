"""A cache that several processes share, while they are killed: is anything wrong, damaged, lost, or paid for again?"""
