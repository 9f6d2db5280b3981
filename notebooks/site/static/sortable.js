// Tables of the class "sortable": each head becomes a button that sorts by its column, upwards and then downwards.
"use strict";

const value = (row, column) => {
  const words = row.cells[column].innerText.trim();
  const number = parseFloat(words.replace(/,/g, "").replace(/^(\d+): .*/, "$1"));
  return Number.isNaN(number) ? words : number;
};

// Numbers come before words, and empty cells last in either direction.
const compare = (one, other) =>
  typeof one === typeof other ? (one < other ? -1 : one > other ? 1 : 0) : typeof one === "number" ? -1 : 1;

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const filled = [], empty = [];
      for (const row of table.tBodies[0].rows) (value(row, column) === "" ? empty : filled).push(row);
      filled.sort((one, other) => (down ? -1 : 1) * compare(value(one, column), value(other, column)));
      table.tBodies[0].append(...filled, ...empty);
    });
  });
}
