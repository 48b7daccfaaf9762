// Draws each canvas[data-table] from the table it names: the first column are the labels, the next two
// the bars. A bar leads to where its number in the table leads. Without this script there is the table.
const style = getComputedStyle(document.documentElement);
const colour = (name) => style.getPropertyValue(name).trim();

for (const canvas of document.querySelectorAll("canvas[data-table]")) {
  const table = document.getElementById(canvas.dataset.table);
  table.closest("details").open = false;
  canvas.parentElement.hidden = false;
  const rows = [...table.tBodies[0].rows];
  const heads = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
  const number = (cell) => Number(cell.textContent.replaceAll(",", ""));
  const colours = [colour("--bs-primary"), colour("--bs-success")];
  const grid = colour("--bs-border-color");
  const ink = colour("--bs-secondary-color");
  const scale = { grid: { color: grid }, ticks: { color: ink, precision: 0, maxRotation: 0, autoSkipPadding: 12 } };
  new Chart(canvas, {
    type: "bar",
    data: {
      labels: rows.map((row) => row.cells[0].textContent),
      datasets: [1, 2].map((column) => ({
        label: heads[column],
        data: rows.map((row) => number(row.cells[column])),
        backgroundColor: colours[column - 1],
      })),
    },
    options: {
      maintainAspectRatio: false,
      animation: false,
      plugins: { legend: { labels: { color: ink } } },
      scales: { x: { ...scale, stacked: false }, y: { ...scale, beginAtZero: true } },
      onClick: (event, elements) => {
        const [bar] = elements;
        const link = bar && rows[bar.index].cells[bar.datasetIndex + 1].querySelector("a");
        if (link) location.href = link.href;
      },
      onHover: (event, elements) => { canvas.classList.toggle("clickable", elements.length > 0); },
    },
  });
}
