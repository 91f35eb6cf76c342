"use strict";
// The number under the pointer, read from the table below a picture: the one thing that markup cannot do.
const tip = document.getElementById("tip");
for (const picture of document.querySelectorAll("figure .heat svg")) {
  const table = picture.closest("figure").querySelector("table");
  const show = (event) => {
    const box = picture.getBoundingClientRect();
    const rows = table.tBodies[0].rows, heads = table.tHead.rows[0].cells;
    const row = rows[Math.min(rows.length - 1, Math.max(0, Math.floor((event.clientY - box.top) / box.height * rows.length)))];
    const column = Math.min(heads.length - 1, 1 + Math.max(0, Math.floor((event.clientX - box.left) / box.width * (heads.length - 1))));
    tip.textContent = `${row.cells[0].textContent}, step ${heads[column].textContent}: ${row.cells[column].textContent || "does not apply"}`;
    tip.hidden = false;
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${event.clientY + 16 + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 8 : event.clientY + 16}px`;
  };
  picture.addEventListener("pointermove", show);
  picture.addEventListener("pointerdown", show); // a finger
  picture.addEventListener("pointerleave", () => { tip.hidden = true; });
}
