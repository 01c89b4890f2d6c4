"""Finding our own bugs before users do: histories, checkers and fault models.

A `world` is a cluster of production replicas in simulated time: `scheduler`, `network`, `disk` and `state`
take the place of what a machine gives, `server` that of the drive loop. `faults` draws from the seed what
goes wrong, `nemesis` does it, and `clients` call meanwhile. `history` records what they did and saw.
`checkers` judge a history or a cluster, each checker in its own module; `trace` picks the events that explain
a failure; `runs` runs seeds.
Everything here ships with the package, so that a failing run can be replayed by whoever has it installed.
"""
