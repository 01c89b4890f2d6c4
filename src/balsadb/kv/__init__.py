"""The replicated state machine: what the database *is*, without any network, disk or clock.

The log says which batches of commands ran and in which order; this package says what they do. An entry's
payload is a `batch`: who made it, the batch's number there, and argument vectors. `machine.StateMachine`
decides whether the batch is due (rules P2 and P5: each once, in the order of its origin, members only) and
hands the vectors to `execution`, which finds each command in the `table` and runs its handler from
`commands/` against the `keyspace`. The keyspace checks lengths and the entry's budget (rule S5), stamps the
key's revision, and keeps records in a `store`. What comes back are `reply` values; `resp` gives them a form.

Three properties hold everything together:

* *Deterministic* (rule S4). Nothing here looks at a clock, at randomness, at a node's settings or at the
  order of a set; every bound is a constant in `limits`. So replicas that apply the same log agree, byte for
  byte, and `digests` lets an operator check it (rule S8).
* *Total.* Whatever a payload of a known version holds, `apply` returns: a malformed batch changes nothing and
  raises an alarm, a malformed command gets a refusal. Only an unknown version stops the node, because running
  on would make replicas diverge.
* *Atomic.* A command makes all its changes or none; a transaction is collected in an overlay that is merged
  or dropped as a whole.

Reads run against the same keyspace between entries, or inside one as local slots (rule P6).
"""
