"""The commands, one module per family. Each ends in `COMMANDS`, its part of the table.

A handler is a function of (keyspace, argument vector). It reads first, decides, and makes its one change
last, through a `Keyspace` method that does all of it or returns the refusal to answer. It looks at no clock,
no randomness and nothing of the node it runs on, so that every replica does the same (rule S4).
"""
