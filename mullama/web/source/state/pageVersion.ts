/** True while the server has another page than this one, as after an update. */

import { effect, signal } from "@preact/signals";

import { send } from "../api/client.ts";
import { returns } from "./live.ts";

/** True once the server has another page. */
export const outdated = signal(false);

/** Return true if a page of the server does not load this script, whose name changes with the content of the page. */
export function isOther(page: string, script: string): boolean {
  const name = script.split("/").at(-1)!;
  return page.includes("<script") && name !== "" && !page.includes(name);
}

/** Look after each return of the connection: the server may have been started again in another version. */
export function watchPage(): void {
  const own = document.querySelector<HTMLScriptElement>("script[type=module]")?.src ?? "";
  effect(() => {
    if (!returns.value) return;
    send("ui/").then((answer) => answer.text()).then(
      (page) => { outdated.value = isOther(page, own); },
      () => {}, // no answer is no other page
    );
  });
}
