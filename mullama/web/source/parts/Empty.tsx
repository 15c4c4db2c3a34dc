/** A place without content yet, with the next step. */

import type { ComponentChildren } from "preact";


/** Show why there is nothing, and the way to something. */
export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <p><strong>{title}</strong></p>
      {children && <p class="quiet">{children}</p>}
    </div>
  );
}
