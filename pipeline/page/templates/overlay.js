"use strict";
// The structure of a report: sites of the truth, and refined models as displacements from them, magnified.
for (const place of document.querySelectorAll(".overlay")) {
  const data = JSON.parse(place.dataset.structure);
  const stage = place.querySelector(".stage");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  if (document.createElement("canvas").getContext("webgl2") === null) {
    place.remove(); // the drawing below shows the same
    continue;
  }
  place.hidden = false;
  const viewer = $3Dmol.createViewer(stage, { antialias: true });
  const radius = (element) => (["H", "B", "C", "N", "O", "F"].includes(element) ? 0.26 : 0.42);
  const vector = (p) => ({ x: p[0], y: p[1], z: p[2] });
  const sum = (p, q, factor = 1) => p.map((x, i) => x + factor * q[i]);
  const shown = new Set(["truth", ...data.models.map((model) => model.name)]);
  let times = Number(place.dataset.times);

  const bonds = (p) => {
    for (let i = 0; i < p.length; i++) for (let j = 0; j < i; j++) {
      const d = Math.hypot(...p[i].map((x, k) => x - p[j][k]));
      if (d > 0.5 && d < 2.45 && data.elements[i] !== data.elements[j]) {
        viewer.addCylinder({ start: vector(p[i]), end: vector(p[j]), radius: 0.05, color: "#9a9a93", fromCap: 0, toCap: 0 });
      }
    }
  };
  const draw = () => {
    viewer.removeAllShapes();
    viewer.setBackgroundColor(dark.matches ? "#161615" : "#fdfdfb");
    const [a, b, c] = data.edges, o = [0, 0, 0];
    for (const [start, edge] of [[o, a], [b, a], [c, a], [sum(b, c), a], [o, b], [a, b], [c, b], [sum(a, c), b],
      [o, c], [a, c], [b, c], [sum(a, b), c]]) {
      viewer.addLine({ start: vector(start), end: vector(sum(start, edge)), color: "#74746f" });
    }
    bonds(data.truth);
    if (shown.has("truth")) {
      data.truth.forEach((p, i) => viewer.addSphere({ center: vector(p), radius: radius(data.elements[i]), color: "#9a9a93", opacity: 0.55 }));
    }
    for (const model of data.models) {
      if (!shown.has(model.name)) continue;
      data.truth.forEach((p, i) => {
        const shift = model.shifts[i];
        if (shift.includes(null)) return;
        const end = sum(p, shift, times);
        viewer.addCylinder({ start: vector(p), end: vector(end), radius: 0.06, color: model.colour, fromCap: 1, toCap: 1 });
        viewer.addSphere({ center: vector(end), radius: 0.45 * radius(data.elements[i]), color: model.colour });
      });
    }
    viewer.render();
  };

  const controls = place.querySelector(".controls");
  const label = document.createElement("label");
  const slider = Object.assign(document.createElement("input"), { type: "range", min: 0, max: 3, step: 0.1, value: Math.log10(times) });
  const told = document.createElement("span");
  const tell = () => { told.textContent = `displacements × ${times >= 10 ? Math.round(times) : times.toFixed(1)}`; };
  slider.addEventListener("input", () => { times = 10 ** Number(slider.value); tell(); draw(); });
  label.append(slider, told);
  controls.append(label);
  for (const [name, colour] of [["truth", "#9a9a93"], ...data.models.map((model) => [model.name, model.colour])]) {
    const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: true });
    box.addEventListener("change", () => { shown[box.checked ? "add" : "delete"](name); draw(); });
    const swatch = document.createElement("i");
    swatch.style.background = colour;
    const one = document.createElement("label");
    one.append(box, swatch, name);
    controls.append(one);
  }
  tell();
  draw();
  viewer.setProjection("orthographic");
  viewer.zoomTo();
  viewer.rotate(-70, "x");
  viewer.rotate(25, "y");
  viewer.render();
  dark.addEventListener("change", draw);
}
