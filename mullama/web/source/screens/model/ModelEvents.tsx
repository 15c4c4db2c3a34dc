/** The newest events that concern a model. */

import { Empty } from "../../parts/Empty.tsx";
import { EventRow, concerns } from "../../parts/EventRow.tsx";
import { events } from "../../state/live.ts";

const SHOWN = 12;

/** The list, newest first. */
export function ModelEvents({ name }: { name: string }) {
  const shown = events.value.filter((event) => concerns(event, name)).slice(-SHOWN).reverse();
  return (
    <section class="panel" aria-labelledby="model-events-title">
      <header><h2 id="model-events-title">Events</h2></header>
      {shown.length ? (
        <ol class="events" tabIndex={0} aria-label="Events of the model, newest first">{shown.map((event) => <EventRow key={event.id} event={event} />)}</ol>
      ) : <Empty title="No event of this model" />}
    </section>
  );
}
