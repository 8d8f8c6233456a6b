"use strict";
// Column headings become buttons: up, down, as it was. Without this script the tables read as they are.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], given = [...body.rows], headings = [...table.tHead.rows[0].cells];
  const value = (row, column) => row.cells[column].dataset.value;
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const next = {ascending: "descending", descending: null}[heading.getAttribute("aria-sort")];
      const order = next === undefined ? "ascending" : next;
      for (const other of headings) other.removeAttribute("aria-sort");
      if (order) heading.setAttribute("aria-sort", order);
      body.append(...(order ? sorted(given, row => value(row, column), order === "ascending" ? 1 : -1) : given));
    });
  });
}

function sorted(rows, valueOf, sign) {
  const known = rows.filter(row => valueOf(row) !== undefined);
  const numbers = known.every(row => valueOf(row).trim() !== "" && !isNaN(valueOf(row)));
  const compare = (a, b) => numbers ? a - b : a.localeCompare(b);
  known.sort((a, b) => sign * compare(valueOf(a), valueOf(b)));
  return [...known, ...rows.filter(row => valueOf(row) === undefined)];
}
