/** Streams of a hidden tab: a browser allows few connections to one server, and each open one is one of them. */

import { signal } from "@preact/signals";

/** Milliseconds after which the streams of a hidden tab end: another tab is often only looked at. */
const GRACE = 5000;

/** True while the tab is shown, or was hidden just now. */
export const shown = signal(true);

let timer: ReturnType<typeof setTimeout> | undefined;

/** Take over whether the tab is shown. */
export function look(): void {
  clearTimeout(timer);
  if (document.visibilityState === "hidden") timer = setTimeout(() => { shown.value = false; }, GRACE);
  else shown.value = true;
}

document.addEventListener("visibilitychange", look);
look();

/** Return when the tab is shown, which is at once for one that is. */
export function untilShown(): Promise<void> {
  return new Promise((resolve) => {
    const stop = shown.subscribe((value) => {
      if (!value) return;
      resolve();
      queueMicrotask(() => stop());
    });
  });
}

/** Call `end` when the tab is hidden; return what takes that back. */
export function onHidden(end: () => void): () => void {
  return shown.subscribe((value) => { if (!value) end(); });
}
