// The structure tokens of every block, as a table of pictures, and a slider that runs through the blocks up to the mask.

const PACE = 900; // milliseconds per block

export class Tokens {
  #tokens = null;
  #timer = 0;

  /** `moved` is called with a block {name, width, height, values, spans}, or with `null` for the answer itself. */
  constructor(section, scrub, moved) {
    this.section = section;
    this.scrub = scrub;
    this.moved = moved;
    this.slider = scrub.querySelector("input");
    this.name = scrub.querySelector("output");
    this.play = scrub.querySelector("button");
    this.table = section.querySelector(".maps");
    this.slider.addEventListener("input", () => {
      this.#stop();
      this.show(Number(this.slider.value));
    });
    this.play.addEventListener("click", () => (this.#timer ? this.#stop() : this.#start()));
  }

  /** Shows the tokens of an answer, `null` for none; `classes` gives names and colours by id. */
  fill(tokens, classes) {
    this.#stop();
    this.#tokens = tokens;
    this.section.hidden = this.scrub.hidden = !tokens;
    if (!tokens) return;
    this.slider.max = tokens.blocks.length;
    const head = document.createElement("tr");
    head.append(cell("td"), ...[...tokens.blocks, "mask"].map((name, i) => {
      const th = cell("th"), button = document.createElement("button");
      th.scope = "col";
      button.type = "button";
      button.textContent = name;
      button.addEventListener("click", () => this.#jump(i));
      th.append(button);
      return th;
    }));
    this.table.tHead.replaceChildren(head);
    this.table.style.setProperty("--n", tokens.blocks.length + 1);
    const rows = tokens.classes.map((id, row) => this.#row(classes.get(id) ?? { name: String(id), color: "#888888" }, tokens, row));
    this.table.tBodies[0].replaceChildren(...rows);
    this.show(tokens.blocks.length);
  }

  /** A class's maps from block to block; the cell of the mask is drawn by `mask`. */
  #row(one, tokens, row) {
    const line = document.createElement("tr"), head = cell("th"), swatch = document.createElement("i");
    head.scope = "row";
    swatch.className = "swatch";
    swatch.style.background = one.color;
    head.append(swatch, one.name);
    line.append(head, ...tokens.maps.map((block, i) => {
      const td = cell("td"), picture = new Image();
      picture.src = block[row];
      picture.alt = `${one.name}, ${tokens.blocks[i]}`;
      picture.addEventListener("click", () => this.#jump(i));
      td.append(picture);
      return td;
    }));
    const td = cell("td"), canvas = document.createElement("canvas");
    canvas.dataset.row = row;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${one.name}, mask`);
    canvas.addEventListener("click", () => this.#jump(tokens.blocks.length));
    td.append(canvas);
    line.append(td);
    return line;
  }

  /** Draws where the answer has each class, over the same part of the plane as the maps. */
  mask({ width, height, ids }, dark) {
    const tokens = this.#tokens;
    if (!tokens) return;
    for (const canvas of this.table.querySelectorAll("canvas")) {
      const scale = 128 / Math.max(tokens.width, tokens.height);
      canvas.width = Math.max(1, Math.round(tokens.width * scale));
      canvas.height = Math.max(1, Math.round(tokens.height * scale));
      const context = canvas.getContext("2d"), id = tokens.classes[canvas.dataset.row];
      context.fillStyle = dark;
      context.fillRect(0, 0, canvas.width, canvas.height);
      context.fillStyle = "#fcfdbf";
      for (let y = 0; y < canvas.height; y += 1) {
        const row = Math.floor((y + 0.5) / scale);
        if (row >= height) break;
        for (let x = 0; x < canvas.width; x += 1) {
          const column = Math.floor((x + 0.5) / scale);
          if (column < width && ids[row * width + column] === id) context.fillRect(x, y, 1, 1);
        }
      }
    }
  }

  /** The block at a position of the slider; after the last one comes the answer. */
  show(position) {
    const tokens = this.#tokens;
    const last = position >= tokens.blocks.length;
    const name = last ? "mask" : tokens.blocks[position];
    this.slider.value = position;
    this.slider.setAttribute("aria-valuetext", name);
    this.name.textContent = name;
    for (const row of this.table.rows) {
      [...row.cells].forEach((one, i) => one.classList.toggle("now", i === position + 1));
    }
    this.moved(last ? null : { name, ...tokens.labels[position], spans: [tokens.width, tokens.height] });
  }

  #jump(position) {
    this.#stop();
    this.show(position);
  }

  #start() {
    this.scrub.classList.add("playing");
    this.play.setAttribute("aria-label", "Pause");
    this.show(0);
    this.#timer = setInterval(() => {
      const next = Number(this.slider.value) + 1;
      this.show(next);
      if (next >= this.#tokens.blocks.length) this.#stop();
    }, PACE);
  }

  #stop() {
    clearInterval(this.#timer);
    this.#timer = 0;
    this.scrub.classList.remove("playing");
    this.play.setAttribute("aria-label", "Play from the first block");
  }
}

const cell = (tag) => document.createElement(tag);
