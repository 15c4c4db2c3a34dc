/** The newest events of the server. */

import { moment } from "../../format/units.ts";
import { Empty } from "../../parts/Empty.tsx";
import { events } from "../../state/live.ts";

const SHOWN = 50;

/** The list, newest first. */
export function Events() {
  const shown = events.value.slice(-SHOWN).reverse();
  return (
    <section class="panel" aria-labelledby="events-title">
      <header><h2 id="events-title">Events</h2></header>
      {shown.length ? (
        <ol class="events" tabIndex={0} aria-label="Events, newest first">
          {shown.map((event) => (
            <li key={event.id}>
              <time class="quiet" dateTime={new Date(event.when * 1000).toISOString()}>{moment(event.when)}</time>
              <span><strong>{event.kind.replaceAll("-", " ")}</strong> {event.message || event.subject}</span>
            </li>
          ))}
        </ol>
      ) : <Empty title="No event yet" />}
    </section>
  );
}
