/** The focus of the keyboard. */

/** Return the element that has the focus, also inside the editor, which has a tree of its own. */
export function focused(): HTMLElement | null {
  let found = document.activeElement;
  while (found?.shadowRoot?.activeElement) found = found.shadowRoot.activeElement;
  return found instanceof HTMLElement && found !== document.body ? found : null;
}
