/** A share of a whole as a bar, with its numbers in words for readers of the text. */

interface Props {
  value: number;
  whole: number;
  label: string;
  /** The whole is reached in the end, as by a download, so that nearly all of it is no warning. */
  ends?: boolean;
}

/** Draw `value` of `whole`. */
export function Bar({ value, whole, label, ends = false }: Props) {
  const share = whole > 0 ? Math.min(1, value / whole) : 0;
  return (
    <svg class="bar" viewBox="0 0 100 4" preserveAspectRatio="none" role="img" aria-label={label}>
      <rect class="bar-ground" width="100" height="4" />
      <rect class={share > 0.9 && !ends ? "bar-full" : "bar-value"} width={Math.max(share * 100, value ? 1 : 0)} height="4" />
    </svg>
  );
}
