/** One event of the server, with links to its models and to the revision in force. */

import { memo } from "preact/compat";

import type { ServerEvent } from "../api/types.ts";
import { visible } from "../format/text.ts";
import { moment } from "../format/units.ts";
import { link } from "../shell/router.ts";

/** Return true for an event that is about a model. */
export function concerns(event: ServerEvent, model: string): boolean {
  return event.subject === model || (event.models?.includes(model) ?? false);
}

/** Time, kind, text, models and revision. An event does not change, so its row is drawn once. */
export const EventRow = memo(function EventRow({ event }: { event: ServerEvent }) {
  const named = event.models ?? [];
  return (
    <li>
      <time class="quiet" dateTime={new Date(event.when * 1000).toISOString()}>{moment(event.when)}</time>
      <span>
        <strong>{event.kind.replaceAll("-", " ")}</strong> {visible(event.message || event.subject)}
        {named.map((name) => <> <a class="small" key={name} href={link("models", name)}>{name}</a></>)}
        {event.generation !== undefined && event.generation > 0 && <> <a class="quiet small" href={link("history", String(event.generation))}>revision {event.generation}</a></>}
      </span>
    </li>
  );
});
