/** Replaces a screen that cannot be drawn by the reason, so that the rest of the page stays usable. */

import type { ComponentChildren } from "preact";
import { useErrorBoundary } from "preact/hooks";

import { Problem } from "./Problem.tsx";

/** Show the children, or why they cannot be drawn: the server may be of another version than this page. */
export function Guard({ children }: { children: ComponentChildren }) {
  const [error, again] = useErrorBoundary();
  if (!error) return <>{children}</>;
  return (
    <>
      <Problem title="This screen cannot be drawn" error={error} />
      <p class="quiet">The server may be of another version than this page. A draft of the manifest is kept.</p>
      <p class="actions">
        <button class="button" onClick={again}>Try again</button>
        <button class="button" onClick={() => window.location.reload()}>Load the page again</button>
      </p>
    </>
  );
}
