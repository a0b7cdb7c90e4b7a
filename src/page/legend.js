// The classes of an answer with their shares. One can be shown alone, and each can be hidden.

const percent = (share) => (share >= 0.0995 ? `${Math.round(share * 100)} %` : share >= 0.001 ? `${(share * 100).toFixed(1)} %` : "< 0.1 %");

const EYE = "M10 4C5.5 4 2.4 7.6 1.2 10c1.2 2.4 4.3 6 8.8 6s7.6-3.6 8.8-6C17.6 7.6 14.5 4 10 4Zm0 2.5a3.5 3.5 0 1 1 0 7 3.5 3.5 0 0 1 0-7Z";

export class Legend {
  #hidden = new Set();
  #only = null;
  #hovered = null;

  /** `changed` is called whenever other classes are shown. */
  constructor(list, all, changed) {
    this.list = list;
    this.all = all;
    this.changed = changed;
    all.addEventListener("click", () => this.reset());
  }

  isShown(id) {
    const alone = this.#hovered ?? this.#only;
    return alone === null ? !this.#hidden.has(id) : alone === id;
  }

  reset() {
    this.#hidden.clear();
    this.#only = null;
    this.#mark();
  }

  fill(classes) {
    this.#hovered = null;
    const largest = Math.max(...classes.map((one) => one.share), 0) || 1;
    const sorted = [...classes].sort((a, b) => b.share - a.share);
    this.list.replaceChildren(...sorted.map((one) => this.#row(one, largest)));
    this.reset();
  }

  #row(one, largest) {
    const row = document.createElement("li");
    row.dataset.id = one.id;
    const [show, hide] = [document.createElement("button"), document.createElement("button")];
    show.type = hide.type = "button";
    show.className = "row";
    const swatch = document.createElement("i"), name = document.createElement("b"), share = document.createElement("span"), more = document.createElement("small"), bar = document.createElement("em");
    swatch.className = "swatch";
    swatch.style.background = bar.style.background = one.color;
    bar.style.width = `${Math.max(1, (one.share / largest) * 100)}%`;
    name.textContent = one.name;
    share.textContent = percent(one.share);
    more.textContent = [
      one.regions === undefined ? null : `${one.regions} ${one.regions === 1 ? "region" : "regions"}`,
      one.mean_confidence == null ? null : `confidence ${Math.round(one.mean_confidence * 100)} %`,
    ].filter(Boolean).join(", ");
    show.append(swatch, name, share, bar, more);
    show.title = "Show this class alone";
    hide.className = "quiet icon";
    hide.dataset.name = one.name;
    hide.innerHTML = `<svg viewBox="0 0 20 20" aria-hidden="true"><path d="${EYE}"/><path class="off" d="m3 2 15 15-1.2 1.2L1.8 3.2Z"/></svg>`;
    show.addEventListener("click", () => {
      this.#only = this.#only === one.id ? null : one.id;
      if (this.#only !== null) this.#hidden.delete(one.id);
      this.#mark();
    });
    hide.addEventListener("click", () => {
      if (!this.#hidden.delete(one.id)) this.#hidden.add(one.id);
      this.#only = null;
      this.#mark();
    });
    const hover = (id) => (event) => {
      if (event.pointerType !== "mouse" || this.#hovered === id) return;
      this.#hovered = id;
      this.changed();
    };
    show.addEventListener("pointerenter", hover(one.id));
    show.addEventListener("pointerleave", hover(null));
    row.append(show, hide);
    return row;
  }

  #mark() {
    for (const row of this.list.children) {
      const id = Number(row.dataset.id), [show, hide] = row.children;
      const hidden = this.#hidden.has(id);
      show.setAttribute("aria-pressed", this.#only === id);
      hide.setAttribute("aria-pressed", hidden);
      hide.setAttribute("aria-label", `Hide ${hide.dataset.name}`);
      hide.title = hidden ? "Show" : "Hide";
      row.classList.toggle("off", this.#only === null ? hidden : this.#only !== id);
    }
    this.all.hidden = this.#only === null && this.#hidden.size === 0;
    this.changed();
  }
}
