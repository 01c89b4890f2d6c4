"""Finding our own bugs before users do: histories, checkers and fault models.

`history` records what clients did and saw. `checkers` judge a history or a cluster, each checker in its
own module. `disk` is a disk that loses what was not synced. Everything here ships with the package, so that
a failing run can be replayed by whoever has it installed.
"""
