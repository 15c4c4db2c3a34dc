/** The memory of the machine and of its devices. */

import type { Status } from "../../api/types.ts";
import { bytes } from "../../format/units.ts";
import { Bar } from "../../parts/Bar.tsx";

/** One bar for the main memory and one for each device. */
export function Devices({ known }: { known: Status }) {
  const { ram_total, ram_available, gpus, cores } = known.machine;
  const taken = ram_total - ram_available;
  const places = new Map(known.memory.places.map((place) => [place.name, place]));
  return (
    <section class="panel" aria-labelledby="devices-title">
      <header>
        <h2 id="devices-title">Memory</h2>
        <span class="quiet">{bytes(known.memory.used)} by models</span>
      </header>
      <ul class="devices">
        <li>
          <p><span>Main memory, {cores} cores</span> <span class="number">{bytes(taken)} of {bytes(ram_total)}</span></p>
          <Bar value={taken} whole={ram_total} label={`${bytes(taken)} of ${bytes(ram_total)} used`} />
          <Budget place={places.get("")} />
        </li>
        {gpus.map((gpu) => (
          <li key={gpu.name}>
            <p>
              <span>{gpu.name} <span class="quiet">{gpu.description}</span></span>
              <span class="number">{bytes(gpu.total - gpu.free)} of {bytes(gpu.total)}</span>
            </p>
            {gpu.fault ? <p>{gpu.fault}</p> : (
              <Bar value={gpu.total - gpu.free} whole={gpu.total} label={`${bytes(gpu.total - gpu.free)} of ${bytes(gpu.total)} used`} />
            )}
            <Budget place={places.get(gpu.name)} />
          </li>
        ))}
      </ul>
    </section>
  );
}

/** The models of a device against its budget. */
function Budget({ place }: { place: Status["memory"]["places"][number] | undefined }) {
  if (!place) return null;
  const over = place.used > place.budget;
  return (
    <>
      <p class={over ? "refusal" : "quiet"}><span>{over && "▲ "}Models against the budget</span> <span class="number">{bytes(place.used)} of {bytes(place.budget)}</span></p>
      <Bar value={place.used} whole={place.budget} label={`models use ${bytes(place.used)} of a budget of ${bytes(place.budget)}`} />
    </>
  );
}
