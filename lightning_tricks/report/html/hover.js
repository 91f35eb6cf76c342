"use strict";
// The numbers under the pointer, read from the table below a picture or from its lines: the one thing that markup cannot do.
const tip = document.getElementById("tip");
const hover = (picture, told) => {
  const show = (event) => {
    const box = picture.getBoundingClientRect();
    tip.textContent = told((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
    tip.hidden = !tip.textContent;
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${event.clientY + 16 + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 8 : event.clientY + 16}px`;
  };
  picture.addEventListener("pointermove", show);
  picture.addEventListener("pointerdown", show); // a finger
  picture.addEventListener("pointerleave", () => { tip.hidden = true; });
};
for (const picture of document.querySelectorAll("figure .heat svg")) {
  const table = picture.closest("figure").querySelector("table");
  const place = (share, count) => Math.min(count - 1, Math.max(0, Math.floor(share * count)));
  hover(picture, (across, down) => {
    const rows = table.tBodies[0].rows, heads = table.tHead.rows[0].cells;
    const row = rows[place(down, rows.length)], column = 1 + place(across, heads.length - 1);
    return `${row.cells[0].textContent}, step ${heads[column].textContent}: ${row.cells[column].textContent || "does not apply"}`;
  });
}
for (const picture of document.querySelectorAll(".chart svg")) {
  const [first, last] = picture.dataset.x.split(" ").map(Number), [low, high, kind] = picture.dataset.y.split(" ");
  const { width, height } = picture.viewBox.baseVal;
  const number = (down) => {
    const value = Number(high) + down / height * (low - high);
    return kind === "%" ? `${Math.round(100 * value)}%` : String(Number((kind === "log" ? 10 ** value : value).toPrecision(3)));
  };
  const lines = [...picture.querySelectorAll("path[data-name]")].reverse().map((line) => ({
    name: line.dataset.name, points: [...line.getAttribute("d").matchAll(/[ML]([\d.]+) ([\d.]+)/g)].map((each) => [Number(each[1]), Number(each[2])]),
  }));
  hover(picture, (across) => {
    const nearest = lines.filter((line) => line.points.length).map(({ name, points }) => {
      return { name, at: points.reduce((best, each) => Math.abs(each[0] - across * width) < Math.abs(best[0] - across * width) ? each : best) };
    });
    const closest = Math.min(...nearest.map(({ at }) => Math.abs(at[0] - across * width)));
    const told = nearest.filter(({ at }) => Math.abs(at[0] - across * width) <= closest + width / 100);
    const step = Math.round(first + told[0]?.at[0] / width * (last - first));
    return told.length ? `step ${step}: ${told.map(({ name, at }) => `${name} ${number(at[1])}`.trim()).join(", ")}` : "";
  });
}
