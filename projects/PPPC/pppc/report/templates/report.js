"use strict";
// Tables are sorted by a click on a heading, pictures enlarged by one.
for (const button of document.querySelectorAll("th > button")) {
  button.addEventListener("click", () => {
    const heading = button.parentElement, table = heading.closest("table");
    const index = heading.cellIndex, body = table.tBodies[0];
    const falling = heading.getAttribute("aria-sort") !== "descending";
    const value = (row) => {
      const text = row.cells[index].textContent.trim(), number = parseFloat(text);
      return Number.isNaN(number) ? text : number;
    };
    const compare = (a, b) =>
      typeof a === "number" && typeof b === "number" ? a - b :
      typeof a !== typeof b ? (typeof a === "number" ? 1 : -1) : a.localeCompare(b);
    const rows = [...body.rows].sort((a, b) => compare(value(a), value(b)) * (falling ? -1 : 1));
    for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
    body.append(...rows);
  });
}
const dialog = document.querySelector("dialog");
for (const button of document.querySelectorAll(".enlarge")) {
  button.addEventListener("click", () => {
    const small = button.querySelector("img"), large = dialog.querySelector("img");
    large.src = small.src;
    large.alt = dialog.querySelector("p").textContent = small.alt;
    dialog.showModal();
  });
}
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
