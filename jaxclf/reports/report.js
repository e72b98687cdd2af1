for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const descending = header.getAttribute("aria-sort") !== "descending" && column > 0
        || header.getAttribute("aria-sort") === "ascending";
      const value = (row) => {
        const cell = row.cells[column];
        return column ? Number(cell.dataset.value ?? NaN) : cell.textContent;
      };
      const order = (first, second) => {
        const a = value(first), b = value(second);
        if (!column) return descending ? b.localeCompare(a) : a.localeCompare(b);
        if (isNaN(a) || isNaN(b)) return isNaN(a) - isNaN(b);
        return descending ? b - a : a - b;
      };
      for (const row of [...body.rows].sort(order)) body.append(row);
      for (const each of headers) each.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", descending ? "descending" : "ascending");
    });
  });
}
