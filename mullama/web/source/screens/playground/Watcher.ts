/** Reports which elements of a scrolled place are near the view. */

type Report = (near: boolean) => void;

/** One observer for all of them. */
export class Watcher {
  private readonly reports = new WeakMap<Element, Report>();
  private readonly observer: IntersectionObserver;

  /** margin: the distance in CSS pixels at which an element is near. */
  constructor(root: Element | null, margin: number) {
    this.observer = new IntersectionObserver(
      (entries) => { for (const entry of entries) this.reports.get(entry.target)?.(entry.isIntersecting); },
      { root, rootMargin: `${margin}px 0px` },
    );
  }

  /** Report the nearness of an element until the returned function is called. */
  watch(element: Element, report: Report): () => void {
    this.reports.set(element, report);
    this.observer.observe(element);
    return () => this.observer.unobserve(element);
  }

  end(): void {
    this.observer.disconnect();
  }
}
