/** Light or dark: as the system says, until the reader chooses. */

import { computed, effect, signal } from "@preact/signals";

import { keep, recalled } from "../state/browserStorage.ts";

type Theme = "system" | "light" | "dark";
const STORED = "mullama-theme";
const ORDER: Theme[] = ["system", "light", "dark"];

export const theme = signal<Theme>((recalled("browser", STORED) as Theme | null) ?? "system");

effect(() => {
  if (theme.value === "system") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = theme.value;
  keep("browser", STORED, theme.value);
});

window.addEventListener("storage", (event) => {
  if (event.key === STORED) theme.value = (event.newValue as Theme | null) ?? "system";
});

/** Choose the next theme. */
export function turn(): void {
  theme.value = ORDER[(ORDER.indexOf(theme.value) + 1) % ORDER.length]!;
}

const systemDark = window.matchMedia("(prefers-color-scheme: dark)");
const system = signal(systemDark.matches);
systemDark.addEventListener("change", (event) => { system.value = event.matches; });

/** The colours that are shown now. A drawing that has no CSS, such as a chart, is made again for it. */
export const look = computed<"light" | "dark">(() => (theme.value === "system" ? (system.value ? "dark" : "light") : theme.value));
