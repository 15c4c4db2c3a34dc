"""Who may run, what is loaded, what goes: the only code that changes live state, and it touches nothing else.

Theory of operation. A *worker* is a child process that holds one set of weights; a *unit* is one context in
it; a *model* is a name that leads to one unit. Several models may share a unit, several units a worker.
`decide(state, event)` changes the state and returns commands for the pool, which performs them and reports
back with further events. It is synchronous and runs on the event loop, so there are no locks, and a test needs
nothing but values. Times are monotonic seconds that come in with the events.

After every event the same six passes run, in this order; each is idempotent, so a lost or doubled event does
no harm:

1. expire    queued requests whose time is over are refused, drains past their deadline are cut
2. close     units that nobody wants and no request uses are closed; workers without units are stopped
3. open      wanted units are opened; their workers are started first, if memory allows
4. evict     for a wanted unit that does not fit, idle units of lesser rank are closed
5. grant     waiting requests get a place, higher priority first, then first come first served
6. wake      the next moment at which time alone changes something

A unit is wanted while a model that loads at start leads to it, a request waits for it, its time to live has
not passed since its last use, or the reconciler holds it (it prepares a new one before the swap).
"""
