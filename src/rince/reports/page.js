"use strict";
// Tables sort by a click on a heading; maps and heat maps tell what is under the pointer.
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th"), table = head.closest("table"), body = table.tBodies[0];
    const before = head.getAttribute("aria-sort");
    const order = before === "descending" ? "ascending"
      : before === "ascending" ? "descending" : button.dataset.first;
    const sign = order === "ascending" ? 1 : -1;
    const key = (row) => {
      const cell = row.cells[Number(button.dataset.column)];
      return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent;
    };
    const compare = (one, other) => {
      const [a, b] = [key(one), key(other)];
      const missing = (typeof a !== "number") - (typeof b !== "number");
      if (typeof a === "number" && typeof b === "number") return sign * (a - b);
      // In a column of numbers what has none comes last in either order.
      return missing || sign * a.localeCompare(b, undefined, { numeric: true });
    };
    for (const other of table.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order);
    body.append(...[...body.rows].sort(compare));
  });
}

const tip = document.getElementById("tip");
function show(event, lines, picture) {
  tip.replaceChildren();
  if (picture) tip.append(picture);
  for (const line of lines) {
    const row = document.createElement("div");
    row.textContent = line;
    tip.append(row);
  }
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const right = event.clientX + 14 + width > innerWidth;
  tip.style.left = Math.max(4, right ? event.clientX - width - 14 : event.clientX + 14) + "px";
  tip.style.top = Math.max(4, Math.min(event.clientY + 14, innerHeight - height - 4)) + "px";
}
function onPointer(element, look) {
  element.addEventListener("pointermove", look);
  element.addEventListener("pointerdown", look);
  element.addEventListener("pointerleave", () => { tip.hidden = true; });
}

for (const map of document.querySelectorAll("svg.map")) {
  const points = [];
  for (const path of map.querySelectorAll("path")) {
    for (const [, x, y] of path.getAttribute("d").matchAll(/M(\d+) (\d+)/g)) {
      points.push({ x: Number(x), y: Number(y), path });
    }
  }
  const ring = map.querySelector("circle");
  const sheet = document.getElementById(map.dataset.sheet);
  const texts = JSON.parse(map.dataset.texts);
  onPointer(map, (event) => {
    const box = map.getBoundingClientRect();
    const x = 1000 * (event.clientX - box.left) / box.width;
    const y = 1000 * (event.clientY - box.top) / box.width;
    let best = 0, nearest = Infinity;
    points.forEach((point, i) => {
      const distance = (point.x - x) ** 2 + (point.y - y) ** 2;
      if (distance < nearest) [best, nearest] = [i, distance];
    });
    ring.toggleAttribute("hidden", nearest > 50 ** 2);
    if (nearest > 50 ** 2) { tip.hidden = true; return; }
    const { path } = points[best];
    ring.setAttribute("cx", points[best].x);
    ring.setAttribute("cy", points[best].y);
    const lines = [...new Set([path.dataset.class, path.dataset.group])];
    if (texts) lines.push(texts[best]);
    let picture = null;
    if (sheet) {
      const [width, height] = map.dataset.tile.split(" ").map(Number);
      const columns = Number(map.dataset.columns);
      picture = document.createElement("canvas");
      picture.width = width;
      picture.height = height;
      picture.style.width = width * 72 / height + "px";
      const place = [width * (best % columns), height * Math.floor(best / columns)];
      picture.getContext("2d").drawImage(sheet, ...place, width, height, 0, 0, width, height);
    }
    show(event, lines, picture);
  });
}

for (const card of document.querySelectorAll("[data-cells]")) {
  const cells = JSON.parse(card.dataset.cells), svg = card.querySelector("svg");
  const [left, top, right, bottom] = svg.dataset.box.split(" ").map(Number);
  const count = cells.names.length;
  onPointer(svg, (event) => {
    const box = svg.getBoundingClientRect();
    const column = Math.floor(
      count * ((event.clientX - box.left) / box.width - left) / (right - left));
    const row = Math.floor(count * ((event.clientY - box.top) / box.height - top) / (bottom - top));
    if (Math.min(row, column) < 0 || Math.max(row, column) >= count) { tip.hidden = true; return; }
    const lines = [`test: ${cells.names[row]}`, `training: ${cells.names[column]}`];
    const at = row * count + column;
    if (cells.cosines) {
      const cosine = cells.cosines[at];
      lines.push(cosine === null ? "no pair" : `mean cosine ${(cosine / 100).toFixed(2)}`);
    }
    if (cells.ranks) {
      const rank = cells.ranks[at];
      lines.push(`given: ${rank > 0 ? `rank ${rank}` : rank ? "ignored" : "negative"}`);
    }
    show(event, lines);
  });
}
