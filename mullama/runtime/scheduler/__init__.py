"""The scheduler decides which requests run, which models are loaded and which are closed. Pure.

Theory of operation. A *worker* is a child process that holds one set of weights; a *unit* is one context in it; a
*model* is a name that leads to one unit. Several models may share a unit, several units a worker.
`decide(state, event)` changes the state and returns commands for the pool, which performs them and reports back with
further events. It is synchronous and runs on the event loop, so there are no locks, and a test needs only values.
Times are monotonic seconds that arrive with the events.

After every event the same seven passes run, in this order; each is idempotent, so a lost or doubled event does no harm:

1. expire    refuse queued requests past their deadline; cancel running ones past the drain deadline of their unit
2. close     close units that are not wanted and that no request uses; stop workers without units
3. shrink    close idle units on demand while more is in memory than a lowered budget allows
4. open      open wanted units; start their workers first, if memory allows
5. evict     close idle units of lower or equal rank for a wanted unit that does not fit in memory or in its groups;
             units in use yield to one of their rank after their turn: they get no further requests, and are closed
             when all of them that must make room are idle
6. grant     give places to waiting requests: higher priority first, then first come, first served
7. wake      ask for a tick at the next moment at which time alone changes something

An event that concerns one model alone, such as a request to a loaded model before the next deadline, runs no pass but
`grant` of that model (`decide._only_grants`); the effects are the same.

The passes look at what is open, and at what an event has changed: the first requests of all models are kept in the
order of their deadlines and of the turns of their units (`heads`). So a pass takes no longer for models that are
closed and requests that wait.

Units that lack memory open in the order of their oldest requests, and a later one takes nothing that an earlier one
lacks, so none of equal rank starves.

A unit is wanted while a model that loads at start or when there is room leads to it, a request waits for it, its time
to live has not passed since its last use, or the reconciler pins it (to prepare a new unit before the swap). After a
failure of its worker it is wanted for a while (`wants.RESTARTING`) by requests that went to another model.
"""
