/** The address of the screen: the part behind `#`, such as `#/models/tiny`. */

import { computed, signal } from "@preact/signals";

const location = signal(read());

function read(): string {
  return window.location.hash.replace(/^#/, "") || "/";
}

window.addEventListener("hashchange", () => {
  location.value = read();
});

/** The decoded parts of the address, such as `["models", "tiny"]`. */
export const parts = computed(() => location.value.split("?")[0]!.split("/").filter(Boolean).map(decoded));

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // typed by hand, with a % that begins no character
  }
}

/** Return the link to a screen. */
export function link(...names: string[]): string {
  return `#/${names.map(encodeURIComponent).join("/")}`;
}

/** Open a screen. */
export function open(...names: string[]): void {
  window.location.hash = link(...names);
}

/** Open a screen in place of the present one, which the button Back leaves out then. */
export function replace(...names: string[]): void {
  window.location.replace(link(...names));
}
