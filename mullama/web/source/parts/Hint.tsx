/** The next step for an operator: a text with commands between backticks. */

/** Show a hint; nothing for an empty one. */
export function Hint({ text }: { text: string }) {
  if (!text) return null;
  return <span class="quiet"> {text.split("`").map((part, at) => (at % 2 ? <code key={at}>{part}</code> : part))}</span>;
}
