"use strict";

const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// Structure tokens: the slider, the list of stages and the columns of maps show the same stage.
for (const panel of all(".tokens")) {
  const stages = all(".stage", panel), steps = all(".stages li", panel), slider = panel.querySelector(".slider");
  const heads = all(".maps thead th:not(.truth)", panel), rows = all(".maps tbody tr", panel);
  const play = panel.querySelector(".play"), opacity = panel.querySelector(".opacity");
  let timer = 0;
  const show = (stage) => {
    slider.value = stage;
    slider.setAttribute("aria-valuetext", [...steps[stage].children].map((part) => part.textContent).join(" "));
    stages.forEach((picture, i) => { picture.hidden = i !== stage; });
    steps.forEach((step, i) => step.classList.toggle("now", i === stage));
    heads.forEach((head, i) => head.classList.toggle("now", i === stage));
    rows.forEach((row) => all("td:not(.truth)", row).forEach((cell, i) => cell.classList.toggle("now", i === stage)));
  };
  const stop = () => { clearInterval(timer); timer = 0; play.textContent = "▶"; };
  play.onclick = () => {
    if (timer) return stop();
    play.textContent = "❚❚";
    show(0);
    timer = setInterval(() => {
      const next = Number(slider.value) + 1;
      if (next < stages.length) show(next); else stop();
    }, 800);
  };
  slider.oninput = () => { stop(); show(Number(slider.value)); };
  const jump = (element, stage) => { element.onclick = () => { stop(); show(stage); }; };
  steps.forEach(jump);
  heads.forEach(jump);
  rows.forEach((row) => all("td:not(.truth)", row).forEach(jump));
  opacity.querySelector("input").oninput = (event) => {
    panel.style.setProperty("--overlay", event.target.value / 100);
  };
  panel.querySelector(".controls").hidden = opacity.hidden = false;
  show(stages.length - 1);
}

// Beside the title stands the first image under the model's masks; how its tokens became them is shown when asked for.
const hero = document.querySelector(".hero"), first = document.querySelector(".tokens");
if (hero && first) {
  const masks = hero.querySelector(".stage"), button = document.createElement("button");
  const names = all(".stages span", first).map((name) => name.textContent);
  const stages = all(".stage", first).map((picture) => picture.cloneNode());
  masks.before(...stages);
  stages.forEach((picture) => { picture.hidden = false; picture.style.opacity = 0; });
  const text = "▶ How structure tokens become masks";
  let timer = 0;
  const show = (stage) => {
    masks.style.opacity = stage < stages.length ? 0 : "var(--overlay)";
    stages.forEach((picture, i) => { picture.style.opacity = i === stage ? "var(--overlay)" : 0; });
    button.textContent = stage < stages.length ? names[stage] : text;
  };
  button.type = "button";
  button.onclick = () => {
    clearInterval(timer);
    let stage = 0;
    show(stage);
    timer = setInterval(() => {
      stage += 1;
      show(stage);
      if (stage >= stages.length) clearInterval(timer);
    }, 750);
  };
  hero.querySelector("figcaption").append(button);
  show(stages.length);
}

// Tables sort by the column whose heading is chosen; a second time the other way round.
for (const table of all("table.sortable")) {
  const heads = all("thead th", table), body = table.tBodies[0];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.onclick = () => {
      const numeric = body.rows[0].cells[column].dataset.value !== undefined;
      const down = head.ariaSort ? head.ariaSort === "ascending" : numeric;
      const key = (row) => numeric ? Number(row.cells[column].dataset.value) : row.cells[column].textContent.trim();
      const order = (a, b) => numeric ? key(a) - key(b) : key(a).localeCompare(key(b));
      body.append(...[...body.rows].sort((a, b) => down ? order(b, a) : order(a, b)));
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
    };
  });
}

// Curves answer the pointer with the nearest value.
for (const chart of all("svg[data-points]")) {
  const points = chart.dataset.points.split(";").map((point) => point.split(",")).filter((point) => point.length === 4);
  const make = (name, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  const group = make("g", { class: "readout", visibility: "hidden" });
  const line = make("line", { y1: 14, y2: 214 }), dot = make("circle", { r: 4 }), text = make("text", { y: 24 });
  group.append(line, dot, text);
  chart.append(group);
  chart.onpointermove = (event) => {
    const x = new DOMPoint(event.clientX, event.clientY).matrixTransform(chart.getScreenCTM().inverse()).x;
    let nearest = points[0];
    for (const point of points) if (Math.abs(point[0] - x) < Math.abs(nearest[0] - x)) nearest = point;
    const right = nearest[0] > 380;
    line.setAttribute("x1", nearest[0]);
    line.setAttribute("x2", nearest[0]);
    dot.setAttribute("cx", nearest[0]);
    dot.setAttribute("cy", nearest[1]);
    text.setAttribute("x", Number(nearest[0]) + (right ? -8 : 8));
    text.setAttribute("text-anchor", right ? "end" : "start");
    text.textContent = `${nearest[3]} at ${nearest[2]}`;
    group.setAttribute("visibility", "visible");
  };
  chart.onpointerleave = () => group.setAttribute("visibility", "hidden");
}

// Commands can be copied where the browser allows it.
for (const button of all(".command button")) {
  if (!navigator.clipboard) continue;
  button.hidden = false;
  button.onclick = async () => {
    await navigator.clipboard.writeText(button.previousElementSibling.textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  };
}

// Paper has no folds.
addEventListener("beforeprint", () => all("details").forEach((details) => { details.open = true; }));
