/** The course of a number over the last minutes. */


/** Draw the values, oldest first, over a fixed number of places, so that the line moves and never stretches. */
export function Sparkline({ values, places = 60, label }: { values: number[]; places?: number; label: string }) {
  const shown = values.slice(-places);
  const top = Math.max(1, ...shown);
  const first = places - shown.length;
  const points = shown.map((value, index) => `${first + index},${(18 * (1 - value / top) + 1).toFixed(1)}`);
  return (
    <svg class="sparkline" viewBox={`0 0 ${places - 1} 20`} preserveAspectRatio="none" role="img" aria-label={label}>
      <polyline points={points.join(" ")} />
    </svg>
  );
}
