"use strict";
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement;
    const column = head.cellIndex;
    const body = head.closest("table").tBodies[0];
    const falling = head.getAttribute("aria-sort") === "ascending";
    const key = (row) => {
      const cell = row.cells[column];
      const text = "value" in cell.dataset ? cell.dataset.value : cell.textContent.trim();
      return text !== "" && Number.isFinite(Number(text)) ? Number(text) : text;
    };
    const compare = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (typeof x === "number" && typeof y === "number") return x - y;
      if (typeof x === "number" || typeof y === "number") return typeof x === "number" ? -1 : 1;
      return x.localeCompare(y, "en", { numeric: true });
    };
    const rows = [...body.rows].sort((a, b) => (falling ? compare(b, a) : compare(a, b)));
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    body.append(...rows);
  });
}
for (const viewer of document.querySelectorAll(".viewer")) {
  const figures = [...viewer.querySelectorAll(":scope > figure")];
  if (figures.length < 2) continue;
  viewer.classList.add("one");
  const bar = document.createElement("div");
  bar.className = "controls";
  const slider = Object.assign(document.createElement("input"), { type: "range", min: 0, max: figures.length - 1, value: figures.length >> 1 });
  slider.setAttribute("aria-label", "frame");
  const show = () => figures.forEach((figure, i) => figure.classList.toggle("shown", i === Number(slider.value)));
  const step = (by) => () => { slider.value = Number(slider.value) + by; show(); };
  for (const [text, name, by] of [["◂", "previous frame", -1], ["▸", "next frame", 1]]) {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: text });
    button.setAttribute("aria-label", name);
    button.addEventListener("click", step(by));
    bar.append(button);
  }
  slider.addEventListener("input", show);
  const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: true });
  box.addEventListener("change", () => viewer.classList.toggle("bare", !box.checked));
  const label = document.createElement("label");
  label.append(box, "reflections");
  bar.append(slider, label);
  viewer.before(bar);
  show();
}
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details")) part.open = true;
});
