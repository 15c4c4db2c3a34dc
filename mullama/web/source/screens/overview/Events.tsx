/** The newest events of the server. */

import { Empty } from "../../parts/Empty.tsx";
import { EventRow } from "../../parts/EventRow.tsx";
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
            <EventRow key={event.id} event={event} />
          ))}
        </ol>
      ) : <Empty title="No event yet" />}
    </section>
  );
}
