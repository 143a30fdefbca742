"use strict";
const dark = matchMedia("(prefers-color-scheme: dark)");

// Ink and lines of a chart, for the page's colours and on paper.
function colours(isDark) {
  const ink = isDark ? "#e6e9ec" : "#1c1f23";
  const grid = isDark ? "#3b434a" : "#dfe3e7";
  return {
    "font.color": ink,
    "xaxis.gridcolor": grid, "xaxis.linecolor": grid, "xaxis.zerolinecolor": grid,
    "yaxis.gridcolor": grid, "yaxis.linecolor": grid, "yaxis.zerolinecolor": grid,
  };
}

const charts = [...document.querySelectorAll(".chart")];
for (const chart of charts) {
  const { data, layout } = JSON.parse(chart.querySelector("script").textContent);
  chart.replaceChildren();
  Plotly.newPlot(chart, data, layout, { responsive: true, displayModeBar: false });
}

function recolour(isDark) {
  for (const chart of charts) Plotly.relayout(chart, colours(isDark));
}

recolour(dark.matches);
dark.addEventListener("change", () => recolour(dark.matches));

// A chart does not follow the paper's width by itself: this is what A4 and letter have between their margins.
const PAPER = 660;
addEventListener("beforeprint", () => {
  for (const chart of charts) {
    const width = chart.closest(".beside") ? PAPER / 2 - 10 : PAPER;
    Plotly.relayout(chart, { ...colours(false), width, height: 300, autosize: false });
  }
});
addEventListener("afterprint", () => {
  const asBefore = { width: null, height: null, autosize: true };
  for (const chart of charts) Plotly.relayout(chart, { ...colours(dark.matches), ...asBefore });
});

document.body.dataset.ready = "yes"; // for whoever waits until all charts are drawn
